"""Scores of a judge against scores of a reference: correlations, and how often both are the same.

A vector has one entry per item. A score that is NaN or None is missing: its item is left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from metrics.judging.groups import by_group, group_numbers
from metrics.judging.raters import krippendorff_alpha
from metrics.means import mean

Scores = Tensor | Sequence[float | None] | Sequence[Sequence[float | None]]


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation, float64.

    Args:
        x: scores [n].
        y: other scores of the same items [n].

    Returns: a scalar; NaN, with a warning, where fewer than two items have both scores, or one side is constant.

    Raises:
        ValueError: they are not two vectors of one length.
    """
    return _correlation(x, y, stats.pearsonr)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's rank correlation, equal scores sharing their average rank; otherwise see `pearson`."""
    return _correlation(x, y, stats.spearmanr)


def kendall(x: Tensor, y: Tensor) -> Tensor:
    """Kendall's tau-b, which allows for ties on both sides; otherwise see `pearson`."""
    return _correlation(x, y, stats.kendalltau)


def _correlation(x: Tensor, y: Tensor, coefficient: Callable) -> Tensor:
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"two vectors of one length are correlated, not shapes {[*x.shape]} and {[*y.shape]}")
    x, y = x.detach().to("cpu", torch.float64), y.detach().to("cpu", torch.float64)
    both = ~(x.isnan() | y.isnan())
    x, y = x[both], y[both]
    value = math.nan
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        warnings.warn("no correlation of fewer than two items or of constant scores: NaN", stacklevel=3)
    else:
        value = float(coefficient(x.numpy(), y.numpy()).statistic)
    return torch.tensor(value, dtype=torch.float64)


def item_scores(scores: Scores) -> Tensor:
    """One score per item, float64 [n]: the exact mean of those runs of it that could be read, NaN where none could.

    Args:
        scores: a number, or a list of numbers of several runs, per item; None or NaN where a run could not be read. A
            tensor is [n] or [n, runs].
    """
    if isinstance(scores, Tensor):
        table = scores.to("cpu", torch.float64)
        if table.ndim == 1:
            return table
        scores = table.tolist()
    runs = [[one] if one is None or isinstance(one, int | float) else list(one) for one in scores]
    known = [[run for run in item if run is not None and not math.isnan(run)] for item in runs]
    return torch.tensor([item[0] if len(item) == 1 else mean(item) for item in known], dtype=torch.float64)


class JudgeCorrelation(Metric):
    """Correlations of a judge with a reference; the same for any batches and ranks.

    Args:
        groups: parts that are also reported one by one, with the mean over them (capabilities, arXiv 2406.05761,
            section 4).
        **kwargs: of torchmetrics.
    """

    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, groups: Sequence[str] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        self.groups = tuple(groups)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, scores: Scores, references: Scores, groups: Sequence[str] | None = None) -> None:
        """Add items by their scores, see `item_scores`.

        Raises:
            UserError: a group is not known.
        """
        mine, other = item_scores(scores), item_scores(references)
        if len(mine) != len(other):
            raise ValueError(f"{len(mine)} scores and {len(other)} references")
        numbers = group_numbers(groups, self.groups, len(mine))
        self.rows.append(torch.stack([numbers.double(), mine, other], dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Over all items that have both scores.

        Returns: ``pearson``, ``spearman``, ``kendall`` (tau-b), ``alpha`` (Krippendorff's, ordinal, of judge and
            reference as two raters), ``n`` items and ``n_excluded``, which lack a score; with groups also
            ``<group>/...`` of each and ``mean/...`` over them. NaN, without a warning, where nothing is defined.
        """
        rows = dim_zero_cat(self.rows).cpu().numpy() if len(self.rows) else np.zeros((0, 3))
        table = torch.from_numpy(rows[np.lexsort(rows.T)])  # sums depend on order
        whole = _coefficients(table[:, 1:])
        return by_group(
            self.groups, whole, lambda number: _coefficients(table[table[:, 0] == number, 1:]), COEFFICIENTS
        )


COEFFICIENTS = ("pearson", "spearman", "kendall", "alpha")


def _coefficients(table: Tensor) -> dict[str, float]:
    known = table[~table.isnan().any(1)]
    x, y = known.unbind(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the numbers say it, group by group
        values = [pearson(x, y), spearman(x, y), kendall(x, y), krippendorff_alpha(known.T, "ordinal")]
    found = dict(zip(COEFFICIENTS, (float(value) for value in values), strict=True))
    return found | {"n": float(len(known)), "n_excluded": float(len(table) - len(known))}


class ScoreAccuracy(Metric):
    """How often a judge gives the very score of the reference, and how far it is from it on average.

    A score that could not be read is no hit, and has no distance.

    Args:
        **kwargs: of torchmetrics.
    """

    higher_is_better = True
    full_state_update = False
    sums: Tensor

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Tensor | Sequence[float | None], references: Tensor | Sequence[float | None]) -> None:
        """Add items; those without a reference do not count.

        Args:
            scores: of one run, [n].
            references: [n].
        """
        mine, other = item_scores(scores), item_scores(references)
        mine, other = mine[~other.isnan()], other[~other.isnan()]
        far = (mine - other).abs()
        counts = [(far == 0).sum(), far.nansum(), (~far.isnan()).sum(), torch.tensor(len(far))]
        self.sums += torch.stack([count.double() for count in counts]).to(self.device)

    def compute(self) -> dict[str, float]:
        """``accuracy``, ``mae``, ``parse_failure_rate`` and ``n``; NaN where there is nothing to count."""
        hits, distance, read, n = self.sums
        found = {"accuracy": hits / n, "mae": distance / read, "parse_failure_rate": 1 - read / n, "n": n}
        return {name: float(value) for name, value in found.items()}
