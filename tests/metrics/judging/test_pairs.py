"""Verdicts on pairs: the rules for ties by hand, both orders and both formats, batches and ranks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.judging import (
    FormatConsistency,
    PairwiseAccuracy,
    PositionConsistency,
    consistency,
    merge_orders,
    pairwise_accuracy,
)
from text.errors import UserError

GOLD, PRED = ["A", "B", "tie", "A"], ["A", "A", "tie", None]
VERDICT = st.sampled_from(["A", "B", "tie", None])
SWAPPED = {"A": "B", "B": "A", "tie": "tie", None: None}


def test_worked_values():
    assert float(pairwise_accuracy(GOLD, PRED)) == pytest.approx(1 / 3)
    assert float(pairwise_accuracy(GOLD, PRED, ties="counted")) == pytest.approx(2 / 4)
    metric = PairwiseAccuracy()
    metric.update(GOLD, PRED)
    found = metric.compute()
    assert found["acc_no_tie"] == pytest.approx(1 / 3)
    assert found["acc_with_tie"] == pytest.approx(2 / 4)
    assert found["parse_failure_rate"] == pytest.approx(1 / 4)
    assert found["n"] == 4


def test_rules_for_a_predicted_tie():
    gold, pred = ["A", "A", "B", "B", "A", None], ["A", "tie", "tie", "A", None, "A"]
    expected = {"wrong": 1 / 5, "half": 2 / 5, "excluded": 1 / 3, "counted": 1 / 5}
    assert {rule: float(pairwise_accuracy(gold, pred, rule)) for rule in expected} == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.tuples(VERDICT, VERDICT), max_size=20), st.sampled_from(["wrong", "half", "excluded", "counted"]))
def test_the_rules_pair_by_pair(pairs, ties):
    points = []
    for gold, pred in pairs:
        if gold is None or (gold == "tie" and ties != "counted") or (ties == "excluded" and pred == "tie"):
            continue
        points.append(0.5 if ties == "half" and pred == "tie" else float(gold == pred))
    gold, pred = [gold for gold, _ in pairs], [pred for _, pred in pairs]
    found = pairwise_accuracy(gold, pred, ties)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(sum(points) / len(points) if points else math.nan, nan_ok=True)
    swapped = pairwise_accuracy([SWAPPED[one] for one in gold], [SWAPPED[one] for one in pred], ties)
    torch.testing.assert_close(found, swapped, equal_nan=True, atol=0, rtol=0)


def test_margins_are_verdicts():
    margins = torch.tensor([0.3, -2, 0, math.nan, -0.0])
    gold = ["A", "B", "A", "A", "tie"]
    for rule in ("wrong", "half", "excluded", "counted"):
        assert pairwise_accuracy(gold, margins, rule) == pairwise_accuracy(gold, ["A", "B", "tie", None, "tie"], rule)


def test_both_orders():
    # pair 1: A, and A again when shown second; pair 2: A, then B
    metric = PositionConsistency()
    metric.update(["A", "A"], ["A", "B"], gold=["A", "A"])
    found = metric.compute()
    assert (found["consistency"], found["acc_both"], found["acc_mean"]) == (0.5, 0.5, 0.75)
    assert float(consistency(["A", "A"], ["A", "B"])) == 0.5
    assert found["first_bias"] == pytest.approx(3 / 4 - 1 / 2 - 1 / 4 + 1 / 4)  # first shown: A, A and B of four


def test_always_the_first():
    metric = PositionConsistency()
    metric.update(["A"] * 6, ["B"] * 6, gold=["A", "B", "A", "A", "B", "B"])
    found = metric.compute()
    assert found == {
        "consistency": 0,
        "first_bias": 0.5,
        "acc_both": 0,
        "acc_mean": 0.5,
        "parse_failure_rate": 0,
        "n": 6,
    }


@settings(deadline=None)
@given(st.lists(VERDICT, min_size=1, max_size=20).filter(lambda verdicts: any(verdicts)))
def test_who_does_not_see_the_order_has_no_bias(verdicts):
    metric = PositionConsistency()
    metric.update(verdicts, verdicts)
    found = metric.compute()
    assert (found["consistency"], found["first_bias"]) == (1, 0)
    assert found["parse_failure_rate"] == pytest.approx(verdicts.count(None) / len(verdicts))


def test_what_could_not_be_read():
    assert float(consistency(["A", None, "tie", "B"], ["A", "B", "tie", None])) == 1
    assert consistency([None], ["A"]).isnan()
    metric = PositionConsistency()
    metric.update(["A", None], ["A", "A"], gold=["A", "A"])
    assert metric.compute()["acc_both"] == 0.5
    assert metric.compute()["parse_failure_rate"] == 0.25
    assert all(math.isnan(value) for name, value in PositionConsistency().compute().items() if name != "n")


def test_one_verdict_of_both_orders():
    merged = merge_orders(["A", "A", "B", "tie", None, "tie"], ["A", "B", "B", "A", "A", "tie"])
    assert merged.nan_to_num(9).tolist() == [1, 0, -1, 0, 9, 0]


def test_formats():
    pairwise, direct, gold = ["A", "A", "B", "B"], torch.tensor([2.0, 0.0, -1.0, math.nan]), ["A", "A", "A", "B"]
    metric = FormatConsistency()
    metric.update(pairwise, direct, gold)
    found = metric.compute()
    assert found["delta"] == pytest.approx(3 / 4 - 1 / 4)
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["n"] == 4


def test_groups_and_ranks():
    whole, first, second = (PairwiseAccuracy(("helpful", "honest")) for _ in range(3))
    labels = ["helpful", "honest", "honest", "helpful"]
    whole.update(GOLD, PRED, labels)
    first.update(GOLD[:1], PRED[:1], labels[:1])
    second.update(GOLD[1:], PRED[1:], labels[1:])
    first.merge_state(second)
    found = whole.compute()
    assert first.compute() == found
    assert found["helpful/acc_no_tie"] == 0.5
    assert found["honest/acc_no_tie"] == 0
    assert found["mean/acc_no_tie"] == 0.25  # weighs groups, not pairs
    assert found["mean/acc_with_tie"] == 0.5
    positions, more = PositionConsistency(), PositionConsistency()
    positions.update(["A", "A"], ["A", "B"], gold=["A", "A"])
    expected = positions.compute()
    more.update(["A"], ["B"], gold=["A"])
    positions.reset()
    positions.update(["A"], ["A"], gold=["A"])
    positions.merge_state(more)
    assert positions.compute() == expected


def test_wrong_arguments():
    with pytest.raises(UserError, match="ties 'ignored' is not known: wrong, half, excluded, counted"):
        pairwise_accuracy(GOLD, PRED, "ignored")
    with pytest.raises(UserError, match="'C' is no verdict"):
        pairwise_accuracy(["C"], ["A"])
    with pytest.raises(ValueError, match="different numbers of pairs: 4, 1"):
        pairwise_accuracy(GOLD, ["A"])
