"""Verdicts worked by hand: what the criterion says of given numbers, and when there can be none."""

import math

import pytest

from metrics.intervals import Interval
from studies.claims import Claim
from studies.verdict import decide, estimate, judge, paired

GREATER, LESS = {"direction": "greater"}, {"direction": "less"}


def claim(criterion, **statistic):
    statistic = {"metric": "score", "contrast": "a - b"} | statistic
    return Claim(claim="A beats b", paper=None, statistic=statistic, criterion=criterion)


def by_seed(*values):
    return {seed: {"": value} for seed, value in enumerate(values, start=1)}


def judged(criterion, first, second, guards=(), obstacles=(), **statistic):
    return judge(claim(criterion, **statistic), {"a": first, "b": second}, list(guards), list(obstacles))


@pytest.mark.parametrize(
    ("criterion", "verdict", "is_reversed"),
    [
        # Differences 1, 2, 3: mean 2, standard error 1 / sqrt 3; t is 4.3027 at 95 % and 1.8856 at 80 %.
        (GREATER, "INCONCLUSIVE", False),
        (GREATER | {"level": 0.8}, "SHOWN", False),
        (GREATER | {"level": 0.8, "than": 0.9}, "SHOWN", False),
        (GREATER | {"level": 0.8, "than": 0.95}, "INCONCLUSIVE", False),
        (GREATER | {"than": 2}, "NOT SHOWN", False),  # on the border is not beyond it
        (GREATER | {"than": 3}, "NOT SHOWN", False),
        (GREATER | {"level": 0.8, "than": 3.1}, "NOT SHOWN", True),
        (LESS, "NOT SHOWN", False),
        (LESS | {"level": 0.8}, "NOT SHOWN", True),
        (LESS | {"than": 4.4}, "INCONCLUSIVE", False),
        (LESS | {"than": 4.5}, "SHOWN", False),
        ({"point": "> 0"}, "SHOWN", False),
        ({"point": ">= 2"}, "SHOWN", False),
        ({"point": "> 2"}, "NOT SHOWN", False),
        ({"point": "<= 1.9"}, "NOT SHOWN", False),
        (GREATER | {"level": 0.8, "point": ">= 2"}, "SHOWN", False),
        (GREATER | {"level": 0.8, "point": ">= 2.5"}, "NOT SHOWN", False),
    ],
)
def test_verdicts_by_hand(criterion, verdict, is_reversed):
    outcome = judged(criterion, by_seed(4, 6, 8), by_seed(3, 4, 5))
    assert (outcome.verdict, outcome.reversed) == (verdict, is_reversed)


def test_the_interval_is_that_of_the_paired_differences():
    outcome = judged(GREATER, by_seed(4, 6, 8), by_seed(3, 4, 5))
    assert outcome.contrast.per_seed == {1: 1, 2: 2, 3: 3}
    half = 4.302652729911275 / math.sqrt(3)
    assert outcome.contrast.interval.mean == pytest.approx(2)
    assert outcome.contrast.interval.low == pytest.approx(2 - half)
    assert outcome.contrast.interval.high == pytest.approx(2 + half)
    assert outcome.arms["a"].interval.mean == pytest.approx(6)
    assert outcome.arms["a"].interval.low == pytest.approx(6 - 2 * half)


def test_one_arm_is_compared_with_a_number():
    beside = by_seed(0.0, math.nan, 0.0)
    outcome = judged({"direction": "greater", "than": 1.2}, by_seed(1.3, 1.31, 1.32), beside, contrast="a")
    assert outcome.verdict == "SHOWN"
    assert outcome.contrast == outcome.arms["a"]
    assert math.isnan(outcome.arms["b"].interval.mean)


def test_a_single_seed_is_inconclusive_even_by_a_point():
    outcome = judged({"point": "> 0"}, by_seed(5), by_seed(1))
    assert outcome.verdict == "INCONCLUSIVE"
    assert outcome.contrast.interval.mean == 4
    assert "one seed" in outcome.notes[0]


@pytest.mark.parametrize("missing", [{"": math.nan}, {}])
def test_a_missing_value_is_never_averaged_over(missing):
    second = by_seed(1, 1, 1) | {2: missing}
    outcome = judged(GREATER | {"level": 0.8}, by_seed(5, 5.1, 5.2), second)
    assert outcome.verdict == "INCONCLUSIVE"
    assert math.isnan(outcome.contrast.interval.mean)
    assert any("missing" in note for note in outcome.notes)
    assert outcome.contrast.per_seed[1] == 4, "what is there stays visible"


def test_guards_and_obstacles_leave_no_verdict():
    guard = {"metric": "gain", "contrast": "a", "point": ">= 3"}
    criterion = GREATER | {"level": 0.8, "requires": [guard]}
    good = by_seed(4, 6, 8), by_seed(3, 4, 5)
    assert judged(criterion, *good, guards=[3.0]).verdict == "SHOWN"
    outcome = judged(criterion, *good, guards=[2.9])
    assert outcome.verdict == "INCONCLUSIVE"
    assert outcome.notes == ("precondition not met: gain of a >= 3, but it is 2.9",)
    assert judged(criterion, *good, guards=[math.nan]).verdict == "INCONCLUSIVE"
    outcome = judged(criterion, *good, guards=[3.0], obstacles=["a quick run gives no verdict"])
    assert (outcome.verdict, outcome.reversed) == ("INCONCLUSIVE", False)


def test_equal_values_are_pointed_out():
    outcome = judged(GREATER | {"level": 0.8}, by_seed(2, 3, 4), by_seed(1, 1, 1))
    assert outcome.verdict == "SHOWN"
    assert outcome.notes == ("every seed gave exactly the same value of b: does the seed reach it?",)
    outcome = judged(GREATER, by_seed(2, 3, 4), by_seed(1, 2, 3))
    assert outcome.notes == ("every seed gave exactly the same value of a - b: does the seed reach it?",)


ROWS = {"metric": "rows.jsonl#right", "paired_by": ["seed", "id"]}


def test_rows_are_paired_by_name():
    first = {1: {"x": 1.0, "y": 2.0}, 2: {"x": 3.0, "y": 4.0}}
    second = {1: {"y": 1.0, "x": 1.0}, 2: {"x": 1.0, "z": 0.0}}
    differences, unpaired = paired(first, second)
    assert differences == {1: {"x": 0.0, "y": 1.0}, 2: {"x": 2.0}}
    assert unpaired == ["seed 2: 2 rows are in one arm only"]
    assert judged(GREATER, first, second, test="bootstrap", **ROWS).verdict == "INCONCLUSIVE"


def test_the_two_bootstraps_differ_in_what_is_drawn():
    # Two seeds of four rows, all 0 in one and all 2 in the other. Drawing rows: a binomial of 8, whose 2.5 % point
    # is 1, so [2/8, 14/8]. Drawing seeds first: 0, 1 or 2 with a quarter, a half and a quarter, so [0, 2].
    values = {1: dict.fromkeys("abcd", 0.0), 2: dict.fromkeys("abcd", 2.0)}
    rows = claim(GREATER, test="bootstrap", **ROWS).statistic
    assert estimate(values, rows, 0.95).interval == Interval(1.0, 0.25, 1.75, 8)
    seeds = claim(GREATER, test="two_level_bootstrap", **ROWS).statistic
    assert estimate(values, seeds, 0.95).interval == Interval(1.0, 0.0, 2.0, 2)


def test_two_levels_see_the_spread_of_rows_too():
    seeds = claim(GREATER, test="two_level_bootstrap", **ROWS).statistic
    spread = {1: {"x": 0.0, "y": 2.0}, 2: {"x": 0.0, "y": 2.0}}
    # Each drawn seed has mean 0, 1 or 2 by a quarter, a half, a quarter; their mean is 0 with 1/16 > 2.5 %.
    assert estimate(spread, seeds, 0.95).interval == Interval(1.0, 0.0, 2.0, 2)


def test_without_an_interval_nothing_is_shown():
    assert decide(claim(GREATER).criterion, Interval(2.0, math.nan, math.nan, 1)) == ("INCONCLUSIVE", False)
