from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.benches.best_of_n import best_of_n_curve, expected_best


def test_the_golden_values():
    """janus.md 10.6, by hand: (2 x 1 + 3 x 2 + 4 x 3) / 6."""
    scores = [3.0, 1.0, 4.0, 2.0]
    assert expected_best(scores, 2) == pytest.approx(20 / 6)
    assert expected_best(scores, 1) == 2.5
    assert expected_best(scores, 4) == 4.0


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.data())
def test_it_is_the_mean_over_all_subsets(scores, data):
    n = data.draw(st.integers(1, len(scores)))
    assert expected_best(scores, n) == pytest.approx(mean(map(max, combinations(scores, n))), abs=1e-12)


def test_the_curve_rises_by_powers_of_two_up_to_the_number_of_samples():
    curve = best_of_n_curve([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6])
    assert list(curve) == [1, 2, 4, 6]
    assert curve[1] == pytest.approx(3.5 / 2)
    assert curve[6] == 3.0
    assert list(best_of_n_curve([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])) == [1, 2, 4]
    assert list(best_of_n_curve([[1.0, 2.0, 3.0], [1.0]])) == [1]
    assert best_of_n_curve([[1.0, 2.0, 3.0]], sizes=[3]) == {3: 3.0}
    assert best_of_n_curve([]) == {}
    assert best_of_n_curve([[], [1.0]]) == {}


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_the_curve_never_falls_and_is_flat_where_all_are_equal(scores):
    curve = best_of_n_curve([scores, scores[:1] * len(scores)], sizes=range(1, len(scores) + 1))
    assert list(curve.values()) == sorted(curve.values())
    assert set(best_of_n_curve([[0.1] * len(scores)]).values()) == {0.1}


@pytest.mark.parametrize("n", [0, 3])
def test_more_than_there_are_cannot_be_told(n):
    with pytest.raises(ValueError, match=f"the best of {n} cannot be told from 2 scores"):
        expected_best([1.0, 2.0], n)
