"""One verdict of two orders and several principles, by hand (docs/self_judge.md, the rule); and calibration."""

from __future__ import annotations

import math

import pytest

from metrics.judging.calibration import calibration_error
from metrics.judging.two_orders import Decided, TwoOrders, report_by_parts, two_orders_report
from text.errors import UserError

OFFICIAL = TwoOrders(ties="second")


def scores(first, second):
    """Both orders of a judge without any bias."""
    return (first, second), (second, first)


def test_scores_are_means_over_orders():
    found = OFFICIAL.decide([((0.6, 0.3), (0.5, 0.4))])
    assert (found.first, found.second, found.winner) == (0.5, 0.4, 0)
    assert found.confidence == pytest.approx(1 / 9, abs=1e-12)
    assert found.consistent is False
    assert found.mass == pytest.approx(0.9)


def test_probabilities_among_two_labels_can_choose_another():
    orders = [((0.50, 0.40), (0.06, 0.02))]
    official, other = OFFICIAL.decide(orders), TwoOrders("renormalized").decide(orders)
    assert (official.first, official.second, official.winner) == (pytest.approx(0.26), pytest.approx(0.23), 0)
    assert (other.first, other.winner) == (pytest.approx(0.4027778, abs=1e-7), 1)


def test_logits_take_a_bias_out():
    """Log-odds of A are 2 + 0.5 in one order and 2 - 0.5 in the other: the first answer leads by one half."""
    one, other = ((1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x))) for x in (2.5, 1.5))
    found = TwoOrders("logit").decide([(one, other)])
    assert found.first == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert found.winner == 0


def test_pure_bias_is_a_tie():
    orders = [((0.9, 0.1), (0.9, 0.1))]
    found = OFFICIAL.decide(orders)
    assert (found.first, found.second, found.winner, found.tied, found.consistent) == (0.5, 0.5, 1, True, False)
    assert found.bias == pytest.approx(0.4)
    assert TwoOrders(ties="skip").decide(orders).winner is None
    drawn = [TwoOrders(seed=seed).decide(orders, "p").winner for seed in range(40)]
    assert set(drawn) == {0, 1}
    assert drawn == [TwoOrders(seed=seed).decide(orders, "p").winner for seed in range(40)]


def test_principles_vote_and_means_break_an_even_vote():
    orders = [scores(0.6, 0.4), scores(0.6, 0.4), scores(0.1, 0.5), scores(0.3, 0.5)]
    found = OFFICIAL.decide(orders)
    assert (found.first, found.second, found.winner) == (pytest.approx(0.4), pytest.approx(0.45), 1)
    three = [scores(0.51, 0.49)] * 3 + [scores(0.0, 1.0)]
    assert OFFICIAL.decide(three).winner == 0
    assert OFFICIAL.decide([scores(0.5, 0.5), scores(0.6, 0.4)]).winner == 0  # one to one: the means decide


def test_pairs_that_tell_too_little_have_no_winner():
    orders = [((0.6, 0.3), (0.5, 0.4))]
    assert TwoOrders(min_confidence=0.2).decide(orders).winner is None
    assert TwoOrders(min_confidence=0.1).decide(orders).winner == 0
    assert TwoOrders(require_consistent=True).decide(orders).winner is None
    assert TwoOrders(require_consistent=True).decide([scores(0.6, 0.3)]).winner == 0
    with pytest.raises(UserError, match="min_confidence"):
        TwoOrders(min_confidence=2)


def test_a_report_counts_what_is_left_out_as_half():
    def one(winner, tied=False, confidence=0.9, mass=1.0):
        return Decided(0.5, 0.5, winner, confidence, winner == 0, tied, 0.1, mass)

    found = two_orders_report([one(0), one(1), one(None), one(0, tied=True, mass=0.4)], [0, 0, 1, 0])
    assert found["accuracy"] == (1 + 0 + 0.5 + 1) / 4
    assert found["accuracy_half"] == (1 + 0 + 0.5 + 0.5) / 4
    assert (found["consistency"], found["low_mass"], found["skipped"]) == (0.5, 0.25, 0.25)
    assert found["position_bias"] == pytest.approx(0.1)
    assert found["ece"] == pytest.approx(abs(0.95 - 0.5))
    assert math.isnan(two_orders_report([], [])["accuracy"])


def test_parts_have_numbers_of_their_own_and_a_mean():
    def one(winner):
        return Decided(0.5, 0.5, winner, 0.9, True, False, 0.0, 1.0)

    found, gold = [one(0), one(0), one(1), one(1), one(0)], [0, 0, 0, 1, 1]
    told = report_by_parts(found, gold, {"source": ["a", "a", "a", "b", None], "principle": ["overall"] * 5})
    assert told["accuracy"] == 3 / 5
    assert told["source/a/accuracy"] == pytest.approx(2 / 3)
    assert (told["source/b/accuracy"], told["source/b/n"]) == (1, 1)
    assert told["source/mean/accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert not any(name.startswith("principle/") for name in told), "one part is the whole"


def test_calibration_by_hand():
    assert calibration_error([0.95, 0.95, 0.55, 0.55], [1, 0, 1, 0]) == pytest.approx(0.25)
    assert calibration_error([1.0, 1.0], [1, 1]) == 0
    assert math.isnan(calibration_error([], []))
