"""Rounding that does not say what is not so."""

import math

import pytest

from metrics.tables import bounds, interval, number, on_its_side


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.1234, 0.5678, "[0.12, 0.57]"),
        (0.0004, 0.5, "[0.0004, 0.50]"),
        (-0.5, -0.00449, "[-0.50, -0.004]"),
        (0.0, 0.5, "[0.00, 0.50]"),
        (0.5, 0.5, ""),
        (-0.0, 0.5, "[0.00, 0.50]"),
        (0.1, math.inf, "[0.10, never]"),
        (math.nan, math.nan, ""),
    ],
)
def test_a_bound_beside_zero_is_not_rounded_to_zero(low, high, text):
    assert bounds(low, high) == text


def test_intervals_of_reports_keep_the_side_of_zero():
    assert interval({"value": 0.01, "low": 0.0004, "high": 0.02}) == "0.01 [0.0004, 0.02]"
    assert interval({"value": 0.01, "low": math.nan, "high": math.nan}) == "0.01"
    assert interval({"value": 123456.0, "low": 12.0, "high": math.inf}, None) == "1.2e+05 [12, never]"


def test_marks_other_than_zero():
    assert on_its_side(number, 0.8000001, 2, [0.8]) == "0.8000001"
    assert on_its_side(number, 0.8, 2, [0.8]) == "0.80"
    assert on_its_side(number, 0.801, 2, [0.9]) == "0.80"
