"""Scores by rubric, and what two models' scores say of who answers better (arXiv 2405.17977, section 4).

An instance is one instruction under one system message; it has a score from 1 to 5 for each of its rubrics, or none
where the judge came to no verdict. This file knows scores, sources and groups. It does not know who judged.

Shape suffix: I instances.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from metrics.intervals import cluster_weights, weighted_mean
from metrics.means import fraction, mean
from text.errors import UserError

Outcome = Literal["win", "loss", "tie_good", "tie_bad"]
OUTCOMES: tuple[Outcome, ...] = ("win", "loss", "tie_good", "tie_bad")
NULL = -1

LOWEST, HIGHEST = 1.0, 5.0


def instance_score(runs: Sequence[Sequence[float | None]]) -> float | None:
    """Mean over rubrics of each rubric's mean over judge runs, exact; what is None counts nowhere.

    Args:
        runs: the scores of all rubrics, in one order, by run.

    Returns: None if there is no score at all.
    """
    rubrics = [[fraction(score) for score in scores if score is not None] for scores in zip(*runs, strict=True)]
    means = [statistics.mean(scores) for scores in rubrics if scores]
    return mean(means) if means else None


def compare(
    score: float | None, other: float | None, tie_eps: float = 0.0, good_threshold: float = 4.0
) -> Outcome | None:
    """Who answers better by the scores of an instance; None if either has none.

    Scores are compared as the fractions that they stand for (see `metrics.means.fraction`).

    Args:
        score: of the model.
        other: of its opponent.
        tie_eps: scores that differ by no more are a tie.
        good_threshold: in a tie both are good if both score at least this.
    """
    if score is None or other is None:
        return None
    ours, theirs = fraction(score), fraction(other)
    if abs(ours - theirs) > fraction(tie_eps):
        return "win" if ours > theirs else "loss"
    return "tie_good" if min(ours, theirs) >= fraction(good_threshold) else "tie_bad"


class MultifacetedScore(Metric):
    """Mean over instances, whatever their sources, as the paper's average is; beside it the mean over sources.

    Args:
        sources: all that there are; instances without one belong to "".
    """

    higher_is_better = True
    full_state_update = False
    totals: Tensor
    counts: Tensor
    excluded: Tensor

    def __init__(self, sources: Sequence[str] = ("",)) -> None:
        super().__init__()
        self.sources = list(dict.fromkeys(sources))
        for name, dtype in (("totals", torch.float64), ("counts", torch.int64)):
            self.add_state(name, default=torch.zeros(len(self.sources), dtype=dtype), dist_reduce_fx="sum")
        self.add_state("excluded", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Sequence[float | None], sources: Sequence[str] | None = None) -> None:
        """Add instances.

        Args:
            scores: of `instance_score`, [I].
            sources: of each; left out, all are of the first.
        """
        for score, source in zip(scores, sources or self.sources[:1] * len(scores), strict=True):
            if source not in self.sources:
                raise UserError(f"source '{source}' is none of {', '.join(self.sources)}")
            if score is None:
                self.excluded += 1
                continue
            self.totals[self.sources.index(source)] += score
            self.counts[self.sources.index(source)] += 1

    def compute(self) -> dict[str, float]:
        """``score``, ``macro``, ``score/<source>``, how many ``instances`` count and how many are ``excluded``."""
        means = self.totals / self.counts
        return {
            "score": float(self.totals.sum() / self.counts.sum()),
            "macro": float(means[self.counts > 0].mean()),
            "instances": int(self.counts.sum()),
            "excluded": int(self.excluded),
            **{f"score/{source}": float(mean) for source, mean in zip(self.sources, means, strict=True) if source},
        }


class TieWinRate(Metric):
    """How often a model answers better than its opponent, or as well and well: the paper's "tie+win" (figure 3).

    A tie of two bad answers counts for neither; ``tie_win_rate_all`` is what a reader gets who counts all ties.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    higher_is_better = True
    full_state_update = False
    outcomes: list[Tensor]
    clusters: list[Tensor]

    def __init__(self, resamples: int = 1000, seed: int = 0) -> None:
        super().__init__()
        self.resamples, self.seed = resamples, seed
        self.add_state("outcomes", default=[], dist_reduce_fx="cat")
        self.add_state("clusters", default=[], dist_reduce_fx="cat")

    def update(self, outcomes: Sequence[Outcome | None], clusters: Sequence[int] | None = None) -> None:
        """Add instances.

        Args:
            outcomes: of `compare`, [I].
            clusters: number of each instance's instruction, whose variants are drawn together; left out, each instance
                is one of its own.
        """
        numbers = range(len(outcomes)) if clusters is None else clusters
        codes = [NULL if outcome is None else OUTCOMES.index(outcome) for outcome in outcomes]
        self.outcomes.append(torch.tensor(codes, dtype=torch.int64, device=self.device))
        self.clusters.append(torch.tensor(list(numbers), dtype=torch.int64, device=self.device))

    def compute(self) -> dict[str, float]:
        """``win_rate``, ``tie_win_rate`` (the paper's) with its ``se``, ``tie_win_rate_all``, and the counts behind.

        Rates are shares of n, which leaves nulls out; NaN over nothing.
        """
        codes = _joined(self.outcomes)
        known = codes != NULL
        counts = np.bincount(codes[known], minlength=len(OUTCOMES))
        wins, _, ties_good, ties_bad = counts.tolist()
        n = int(counts.sum())

        def rate(*parts: int) -> float:
            return sum(parts) / n if n else float("nan")

        return {
            "win_rate": rate(wins),
            "tie_win_rate": rate(wins, ties_good),
            "tie_win_rate_all": rate(wins, ties_good, ties_bad),
            "se": self._error(codes[known], _joined(self.clusters)[known]),
            "n": n,
            **dict(zip(("wins", "losses", "ties_good", "ties_bad"), counts.tolist(), strict=True)),
            "nulls": int((~known).sum()),
        }

    def _error(self, codes: np.ndarray, clusters: np.ndarray) -> float:
        """Standard error of ``tie_win_rate``, clusters drawn with replacement; unbiased where there are few."""
        if (n := len(set(clusters.tolist()))) < 2:
            return float("nan")
        order = np.lexsort((codes, clusters))  # the draw must not depend on batches and ranks
        counted = np.isin(codes[order], [OUTCOMES.index("win"), OUTCOMES.index("tie_good")])
        weights = cluster_weights(clusters[order].tolist(), resamples=self.resamples, seed=self.seed)
        return float(np.sqrt(n / (n - 1)) * weighted_mean(counted, weights).std(ddof=1))


def _joined(parts: Any) -> np.ndarray:
    return dim_zero_cat(parts).cpu().numpy() if len(parts) else np.zeros(0, np.int64)
