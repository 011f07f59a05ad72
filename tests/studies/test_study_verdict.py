"""Verdicts worked by hand: what the criterion says of given numbers, and when there can be none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.intervals import Interval, t_interval
from studies.claims import COMPARISONS, Claim
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
        # Differences 1, 2, 3: mean 2, standard error 1 / sqrt 3; t is 4.3027 at 95 % and 1.8856 at 80 %, so that the
        # interval is [-0.484, 4.484], and [0.911, 3.089] at 80 %.
        (GREATER, "INCONCLUSIVE", False),
        (GREATER | {"level": 0.8}, "SHOWN", False),
        (GREATER | {"level": 0.8, "than": 0.9}, "SHOWN", False),
        (GREATER | {"level": 0.8, "than": 0.95}, "INCONCLUSIVE", False),
        (GREATER | {"than": 2}, "INCONCLUSIVE", False),
        (GREATER | {"than": 3}, "INCONCLUSIVE", False),
        (GREATER | {"level": 0.8, "than": 3}, "INCONCLUSIVE", False),
        (GREATER | {"level": 0.8, "than": 3.1}, "NOT SHOWN", True),
        (LESS, "INCONCLUSIVE", False),
        (LESS | {"level": 0.8}, "NOT SHOWN", True),
        (LESS | {"than": 4.4}, "INCONCLUSIVE", False),
        (LESS | {"than": 4.5}, "SHOWN", False),
        ({"point": "> 0"}, "INCONCLUSIVE", False),
        ({"point": "> -0.5"}, "SHOWN", False),
        ({"point": ">= 2"}, "INCONCLUSIVE", False),
        ({"point": ">= 4.5"}, "NOT SHOWN", False),
        ({"point": "<= 1.9"}, "INCONCLUSIVE", False),
        ({"point": "<= 4.5"}, "SHOWN", False),
        ({"point": "< -0.5"}, "NOT SHOWN", False),
        (GREATER | {"level": 0.8, "point": ">= 0.9"}, "SHOWN", False),
        (GREATER | {"level": 0.8, "point": ">= 2"}, "INCONCLUSIVE", False),
        (GREATER | {"level": 0.8, "point": ">= 3.1"}, "NOT SHOWN", False),
        (GREATER | {"level": 0.8, "than": 3.1, "point": ">= 0.9"}, "NOT SHOWN", True),
        (LESS | {"level": 0.8, "than": 2, "point": ">= 3.1"}, "NOT SHOWN", False),
    ],
)
def test_verdicts_by_hand(criterion, verdict, is_reversed):
    outcome = judged(criterion, by_seed(4, 6, 8), by_seed(3, 4, 5))
    assert (outcome.verdict, outcome.reversed) == (verdict, is_reversed)


@pytest.mark.parametrize(
    ("criterion", "value", "verdict"),
    [
        (GREATER, 0.0, "INCONCLUSIVE"),  # nothing differs: neither better nor worse
        (GREATER, 0.1, "SHOWN"),
        (GREATER | {"than": 0.1}, 0.1, "INCONCLUSIVE"),  # as floats three times 0.1 have a mean above 0.1
        ({"point": "> 0.999"}, 1.0, "SHOWN"),
        ({"point": "> 0.1"}, 0.1, "NOT SHOWN"),
        ({"point": ">= 0.1"}, 0.1, "SHOWN"),
    ],
)
def test_intervals_without_width(criterion, value, verdict):
    outcome = judged(criterion, by_seed(value, value, value), by_seed(0, 0, 0))
    assert outcome.verdict == verdict
    assert any("exactly the same value" in note for note in outcome.notes)


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.sampled_from(["greater", "less"]), st.sampled_from("<>"))
def test_verdicts_are_where_the_interval_is(middle, half, bound, direction, sign):
    """The three words are told apart by the bounds alone, and a claim and its reverse are never both shown."""
    found = Interval(middle, middle - half, middle + half, 5)
    verdict, is_reversed = decide(claim({"direction": direction, "than": bound}).criterion, found)
    above, below = found.low > bound, found.high < bound
    expected = {True: "SHOWN", False: "INCONCLUSIVE"}[above if direction == "greater" else below]
    if below if direction == "greater" else above:
        expected = "NOT SHOWN"
    assert (verdict, is_reversed) == (expected, expected == "NOT SHOWN")
    opposite = {"greater": "less", "less": "greater"}[direction]
    assert (decide(claim({"direction": opposite, "than": bound}).criterion, found)[0] == "SHOWN") == is_reversed
    verdict, is_reversed = decide(claim({"point": f"{sign} {bound!r}"}).criterion, found)
    kept = [COMPARISONS[sign](value, bound) for value in (found.low, found.high)]
    assert verdict == ("SHOWN" if all(kept) else "INCONCLUSIVE" if any(kept) else "NOT SHOWN")
    assert not is_reversed


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
    for test in ("t", "two_level_bootstrap"):
        assert judged(GREATER, first, second, test=test, **ROWS).verdict == "INCONCLUSIVE"


def test_seeds_are_the_unit():
    """A thousand rows of two models do not tell what a third one would give."""
    values = {1: dict.fromkeys(map(str, range(1000)), 0.0), 2: dict.fromkeys(map(str, range(1000)), 2.0)}
    over_seeds = estimate(values, claim(GREATER, **ROWS).statistic, 0.95)
    assert over_seeds.interval == t_interval([0.0, 2.0])
    two_levels = estimate(values, claim(GREATER, test="two_level_bootstrap", **ROWS).statistic, 0.95).interval
    assert (two_levels.mean, two_levels.n) == (1.0, 2)
    assert two_levels.low < over_seeds.interval.low * 0.9 < 0


def test_seeds_weigh_the_same_however_many_rows_they_have():
    values = {1: {"a": 0.0, "b": 0.0, "c": 0.0}, 2: {"a": 1.0}}
    for test in ("t", "two_level_bootstrap"):
        assert estimate(values, claim(GREATER, test=test, **ROWS).statistic, 0.95).interval.mean == 0.5


def test_two_levels_see_the_spread_of_rows_too():
    statistic = claim(GREATER, test="two_level_bootstrap", **ROWS).statistic
    alike = {seed: dict.fromkeys("wxyz", 1.0) for seed in range(1, 6)}
    spread = {seed: {f"{seed} {row}": 2.0 * (row % 2) for row in range(40)} for seed in range(1, 6)}
    assert estimate(alike, statistic, 0.95).interval == Interval(1.0, 1.0, 1.0, 5)
    found = estimate(spread, statistic, 0.95).interval
    # A seed's mean of 40 rows has variance 1/40, the mean of five seeds 1/200, and five seeds ask for t(4) sqrt(5/4).
    half = 2.776445 * math.sqrt(5 / 4) * math.sqrt(1 / 200)
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half), rel=0.1)


def test_rows_that_all_seeds_share_are_drawn_together():
    """Five models that agree on every question: only other questions could give another mean."""
    statistic = claim(GREATER, test="two_level_bootstrap", **ROWS).statistic
    right = {f"{row:02d}": float(row % 2) for row in range(40)}
    same = estimate(dict.fromkeys(range(5), right), statistic, 0.95).interval
    apart = {seed: {f"{seed} {name}": value for name, value in right.items()} for seed in range(5)}
    others = estimate(apart, statistic, 0.95).interval
    assert (same.high - same.low) / (others.high - others.low) == pytest.approx(math.sqrt(5), rel=0.1)


def test_rows_that_only_some_seeds_share_leave_no_verdict():
    """Without one row of one seed the rows were drawn within their seeds, and the interval was half as wide."""
    rows = {f"{row:02d}": 1.0 + row % 2 for row in range(40)}
    shared = dict.fromkeys(range(5), rows)
    lacking = shared | {3: {name: value for name, value in rows.items() if name != "07"}}
    nothing = {seed: dict.fromkeys(found, 0.0) for seed, found in lacking.items()}
    outcome = judged(GREATER, lacking, nothing, test="two_level_bootstrap", **ROWS)
    assert outcome.verdict == "INCONCLUSIVE"
    assert outcome.notes[0] == "seed 3: 1 rows that other seeds have are missing, such as '07'"
    assert judged(GREATER, lacking, nothing, **ROWS).verdict == "SHOWN", "the unit of t is the seed"
    whole = dict.fromkeys(range(5), dict.fromkeys(rows, 0.0))
    assert judged(GREATER, shared, whole, test="two_level_bootstrap", **ROWS).verdict == "SHOWN"
    own = {seed: {f"{seed} {name}": value for name, value in found.items()} for seed, found in lacking.items()}
    assert judged(GREATER, own, own, test="two_level_bootstrap", contrast="a", **ROWS).verdict == "SHOWN"


def test_without_an_interval_nothing_is_shown():
    assert decide(claim(GREATER).criterion, Interval(2.0, math.nan, math.nan, 1)) == ("INCONCLUSIVE", False)
