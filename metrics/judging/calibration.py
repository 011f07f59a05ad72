"""How far a judge is as often right as it is sure (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def calibration_error(
    confidences: Sequence[float], correct: Sequence[float], bins: int = 10, lowest: float = 0.5
) -> float:
    """Expected calibration error: the mean over bins of |mean confidence - accuracy|, weighed by their numbers.

    Args:
        confidences: of each verdict in itself, from ``lowest`` to 1.
        correct: 1 for a verdict that is right, 0 for a wrong one, a half for a tie.
        bins: of equal width.
        lowest: confidence of who does not know: one half between two answers.

    Returns: NaN over no verdicts.
    """
    if not len(confidences):
        return math.nan
    sure, right = np.asarray(confidences, float), np.asarray(correct, float)
    places = np.clip(((sure - lowest) / (1 - lowest) * bins).astype(int), 0, bins - 1)
    off = [np.abs((sure - right)[places == place].sum()) for place in range(bins)]
    return float(sum(off) / len(sure))
