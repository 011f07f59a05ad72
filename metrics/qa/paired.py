"""Two ways of answering the same questions: who is right where the other is wrong, and whom to believe how far.

Knows right and wrong answers and numbers of confidence. It does not know who answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class McNemar(NamedTuple):
    """Questions that only one of two ways answers rightly (McNemar 1947).

    Args:
        lost: right before, wrong after.
        won: wrong before, right after.
        p: exact two-sided p-value of as large a difference if both were equally likely; 1 without any such question.
    """

    lost: int
    won: int
    p: float


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> McNemar:
    """The exact test on paired answers, in the same order."""
    pairs = [(bool(one), bool(other)) for one, other in zip(before, after, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return McNemar(lost, won, float(stats.binomtest(won, lost + won).pvalue) if lost + won else 1.0)


class RiskCoverage(NamedTuple):
    """How often answers are wrong if only the most confident ones are given (El-Yaniv and Wiener 2010).

    Args:
        coverage: 1/n, 2/n, ..., 1 [n].
        risk: share of wrong answers among so many [n].
        area: under the curve, the mean of the risks; NaN without answers.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float


def risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> RiskCoverage:
    """The curve of answers in the order of confidence; equally confident ones count as if in random order.

    Args:
        confidence: of each answer, any scale.
        right: whether it is right.
    """
    confidence_N, wrong_N = np.asarray(confidence, np.float64), 1.0 - np.asarray(right, np.float64)
    if not len(confidence_N):
        return RiskCoverage(confidence_N, wrong_N, float("nan"))
    _, group_N = np.unique(-confidence_N, return_inverse=True)
    rate_G = np.bincount(group_N, weights=wrong_N) / np.bincount(group_N)
    number_N = np.arange(1, len(wrong_N) + 1)
    risk_N = np.cumsum(rate_G[np.sort(group_N)]) / number_N
    return RiskCoverage(number_N / len(wrong_N), risk_N, float(risk_N.mean()))
