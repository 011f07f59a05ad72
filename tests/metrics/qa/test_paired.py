"""McNemar's test and risk-coverage curves, worked by hand."""

import numpy as np
import pytest

from metrics.qa.paired import mcnemar, risk_coverage


def test_mcnemar_is_the_exact_binomial_test():
    before = [True] * 10 + [False] * 10
    after = [True] * 8 + [False] * 2 + [True] * 7 + [False] * 3
    found = mcnemar(before, after)
    assert (found.lost, found.won) == (2, 7)
    assert found.p == pytest.approx(2 * (1 + 9 + 36) / 2**9)  # at most 2 of 9, twice
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)


def test_risk_by_hand():
    found = risk_coverage([3.0, 1.0, 2.0], [True, False, False])  # the surest is right, the others are wrong
    np.testing.assert_allclose(found.coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 2 / 3])
    assert found.area == pytest.approx(7 / 18)


def test_equally_sure_answers_have_no_order():
    one, other = (risk_coverage([1.0] * 4, right) for right in ([True, False, False, True], [False, True, True, False]))
    np.testing.assert_allclose(one.risk, [0.5] * 4)
    np.testing.assert_allclose(one.risk, other.risk)
    assert np.isnan(risk_coverage([], []).area)
