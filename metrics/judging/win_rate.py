"""Win rates of a model against a baseline, as AlpacaEval reports them, with an interval.

This file knows verdicts as numbers. It does not know who judged (lm/judging/requests.py). Win rates controlled for
length need a model fitted over many systems' verdicts, which is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from metrics.intervals import bounded_interval
from text.errors import UserError

Convention = Literal["alpaca", "score"]


class WinRate(Metric):
    """How often a model is preferred to its baseline; a draw counts half.

    The rule of https://github.com/tatsu-lab/alpaca_eval: the win rate is the mean score over verdicts that could be
    read, its standard error the sample's standard deviation over the root of n. Results do not depend on the order of
    verdicts, nor on how they were spread over batches and ranks.

    Args:
        convention: of the verdicts. ``alpaca``: 1 the baseline wins, 2 the model wins, 1.5 or 0 a draw; between 1 and 2
            are probabilities that the model wins, plus 1. ``score``: from 0, the baseline wins, to 1, the model wins.
        level: coverage of the interval, see `metrics.intervals.bounded_interval`.

    Attributes:
        n_dropped: how many verdicts could not be read, as of the last `compute`, over all ranks.
    """

    higher_is_better = True
    full_state_update = False
    scores: list[Tensor]
    unread: Tensor

    def __init__(self, convention: Convention = "alpaca", level: float = 0.95) -> None:
        super().__init__()
        if convention not in ("alpaca", "score"):
            raise UserError(f"convention '{convention}' is not known: alpaca (1, 2, a draw 1.5 or 0) or score (0 to 1)")
        self.convention, self.level = convention, level
        self.n_dropped = 0
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("unread", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preferences: Sequence[float | None]) -> None:
        """Add verdicts, one per instruction; None where there is none to read.

        Raises:
            UserError: a number that means nothing under the convention.
        """
        read = [float(p) for p in preferences if p is not None and not math.isnan(p)]
        if self.convention == "alpaca":
            read = [(1.5 if p == 0 else p) - 1 for p in read]
        if strange := [score for score in read if not 0 <= score <= 1]:
            shift, allowed = (1, "1 to 2, or 0") if self.convention == "alpaca" else (0, "0 to 1")
            raise UserError(f"{strange[0] + shift} is no verdict: the convention '{self.convention}' has {allowed}")
        self.scores.append(torch.tensor(read, dtype=torch.float64, device=self.device))
        self.unread += len(preferences) - len(read)

    def compute(self) -> dict[str, float]:
        """Over all verdicts that could be read.

        Returns: win_rate, standard_error, ci_low and ci_high in percent; n_wins, n_wins_base, n_draws and n_total. NaN
            where there are too few verdicts.
        """
        self.n_dropped = int(self.unread)
        scores = dim_zero_cat(self.scores).cpu().numpy() if len(self.scores) else np.zeros(0)
        scores = np.sort(scores)  # sums depend on order
        n = len(scores)
        interval = bounded_interval((100 * scores).tolist(), 0, 100, self.level)
        return {
            "win_rate": interval.mean,
            "standard_error": float(100 * scores.std(ddof=1) / np.sqrt(n)) if n > 1 else math.nan,
            "n_wins": int((scores > 0.5).sum()),
            "n_wins_base": int((scores < 0.5).sum()),
            "n_draws": int((scores == 0.5).sum()),
            "n_total": n,
            "ci_low": interval.low,
            "ci_high": interval.high,
        }
