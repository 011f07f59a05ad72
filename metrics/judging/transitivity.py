"""Do a judge's verdicts on all pairs of some responses put them in an order?"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.judging.pairs import signs


def transitivity(margins: Tensor) -> Tensor:
    """The share of triples that are judged in full and hold no cycle, float64.

    Args:
        margins: [n, n] of the responses to one instruction: above 0 where i is judged better than j, 0 a tie, NaN not
            judged or not read. Read above the diagonal.

    Returns: a scalar; NaN where no triple is judged in full. A cycle has a win in it and no loss on the way round: i
        over j, j over k, k over i; or i over j while both tie with k.
    """
    good, n = _triples(margins)
    return torch.tensor(good, dtype=torch.float64) / n


def _triples(margins: Tensor) -> tuple[int, int]:
    good = n = 0
    sign = signs(margins.detach().to("cpu", torch.float64))
    for i, j, k in combinations(range(len(sign)), 3):
        way = torch.stack([sign[i, j], sign[j, k], -sign[i, k]])
        if way.isnan().any():
            continue
        n += 1
        good += not (way.any() and ((way >= 0).all() or (way <= 0).all()))
    return good, n


def _official(margins: Tensor, gold: Tensor) -> tuple[int, int]:
    """Weights of right verdicts and of all: how many responses lie between two by their gold scores."""
    good = n = 0
    for i, j in combinations(range(len(gold)), 2):
        low, high = sorted((float(gold[i]), float(gold[j])))
        weight = int(((gold > low) & (gold < high)).sum())
        n += weight
        good += weight * bool(margins[i, j] * (gold[i] - gold[j]) > 0)
    return good, n


class Transitivity(Metric):
    """`transitivity` over the triples of all instructions.

    Args:
        official: what the code of arXiv 2405.01535 calls by this name: accuracy against gold scores on pairs that have
            another response between them, weighted by how many. A tie or an unread verdict is wrong.
        **kwargs: of torchmetrics.
    """

    higher_is_better = True
    full_state_update = False
    good: Tensor
    n: Tensor

    def __init__(self, official: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.official = official
        self.add_state("good", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, margins: Tensor, gold: Tensor | None = None) -> None:
        """Add an instruction.

        Args:
            margins: see `transitivity`.
            gold: scores of the responses [n], needed if ``official``.

        Raises:
            ValueError: there are none.
        """
        if self.official and gold is None:
            raise ValueError("official transitivity is measured against gold scores")
        good, n = _official(margins, gold) if self.official and gold is not None else _triples(margins)
        self.good += good
        self.n += n

    def compute(self) -> Tensor:
        """The share, float64."""
        return self.good.double() / self.n
