"""Means of grades, exact: means that are equal on paper are equal here, so that a tie is a tie.

As sums of floats 11/3 and 13/3 have a mean of 3.9999999999999996: below the 4 that they are, and less than another 4.
This file knows numbers. It does not know who gave them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from fractions import Fraction

FINEST = 10**6  # denominators: a mean over runs and rubrics has a far smaller one
ROUNDINGS = 32  # in units of the last place: more than a mean of twenty means collects


def fraction(value: float) -> Fraction:
    """The fraction that a float stands for: 3.6666666666666665 is 11/3, and so is a float a few roundings away from it.

    Args:
        value: a grade or a mean of grades. What is no such thing, a probability say, changes by no more than that.
    """
    exact = Fraction(value)
    simple = exact.limit_denominator(FINEST)
    return simple if abs(simple - exact) <= ROUNDINGS * Fraction(math.ulp(value)) else exact


def mean(values: Iterable[float | Fraction]) -> float:
    """The exact mean, rounded once; NaN of nothing."""
    fractions = [value if isinstance(value, Fraction) else fraction(value) for value in values]
    return float(statistics.mean(fractions)) if fractions else float("nan")
