"""Means of grades, exact: means that are equal on paper are equal here, so that a tie is a tie.

As sums of floats 11/3 and 13/3 have a mean of 3.9999999999999996: below the 4 that they are, and less than another 4.
This file knows numbers. It does not know who gave them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from fractions import Fraction

FINEST = 10**6  # denominators: a mean over runs and rubrics has a far smaller one


def fraction(value: float) -> Fraction:
    """The fraction that a float stands for: 3.6666666666666665 is 11/3, and so is a float one rounding away from it.

    Args:
        value: a grade or a mean of grades. What is no such thing (a probability, say) changes by less than 1e-12.
    """
    return Fraction(value).limit_denominator(FINEST)


def mean(values: Iterable[float | Fraction]) -> float:
    """The exact mean, rounded once; NaN of nothing."""
    fractions = [value if isinstance(value, Fraction) else fraction(value) for value in values]
    return float(statistics.mean(fractions)) if fractions else float("nan")
