"""Exact means: what is a fraction of small numbers is that fraction, and nothing else becomes one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.means import fraction, mean


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=5), min_size=1, max_size=20))
def test_a_mean_of_means_of_grades_is_the_fraction_that_it_is_on_paper(runs):
    means = [sum(run) / len(run) for run in runs]
    on_paper = sum(Fraction(sum(run), len(run)) for run in runs) / len(runs)
    assert fraction(sum(means) / len(means)) == on_paper
    assert mean(means) == float(on_paper)


@pytest.mark.parametrize("value", [4.7e-7, 1e-9, -3e-7, 1 - 4e-7, 5 + 4.9e-7, 0.1234567891])
def test_what_is_no_such_fraction_stays_what_it_is(value):
    """The nearest fraction to each, of a denominator up to a million, is up to 5e-7 away: 0, 1 or 5, say."""
    assert float(fraction(value)) == pytest.approx(value, rel=1e-14)
    assert mean([value, value]) == pytest.approx(value, rel=1e-14)


def test_whole_numbers_and_nothing():
    assert fraction(4) == 4
    assert fraction(3.9999999999999996) == 4
    assert mean([]) != mean([])
