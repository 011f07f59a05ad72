"""Several claims on the same runs: p-values and Holm's correction worked by hand, and what it withdraws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metrics.intervals import t_interval
from studies.claims import Claim, Criterion
from studies.holm import holm
from studies.verdict import intervals, judge, judge_together, p_value

NAN = math.nan


@pytest.mark.parametrize(
    ("given_p", "corrected"),
    [
        # The smallest of four times 4, the next times 3, then 2 and 1; 0.04 must not fall below the 0.06 before it.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.4], [0.8, 0.8]),
        ([0.7, 0.6, 0.01], [1.0, 1.0, 0.03]),
        ([0.02], [0.02]),
        ([], []),
        ([NAN, 0.01, 0.02], [NAN, 0.03, 0.04]),  # what could not be tested still counts among the three
    ],
)
def test_by_hand(given_p, corrected):
    assert holm(given_p) == pytest.approx(corrected, nan_ok=True)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_between_no_correction_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, after in zip(p_values, corrected, strict=True):
        assert p <= after <= min(1.0, len(p_values) * p) + 1e-12
    assert min(corrected) == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    in_order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [corrected[i] for i in in_order] == sorted(corrected)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=8, unique=True), st.floats(-1, 1))
def test_the_p_value_of_a_t_interval_is_that_of_the_t_test(values, than):
    if max(values) - min(values) < 1e-3:
        return
    found = p_value(Criterion(direction="greater", than=than), lambda level: t_interval(values, level))
    assert found == pytest.approx(max(1e-9, stats.ttest_1samp(values, than).pvalue), rel=1e-4, abs=1e-8)


def test_p_values_of_other_criteria():
    def p(criterion, *values):
        return p_value(Criterion(**criterion), lambda level: t_interval(values, level))

    apart = {than: stats.ttest_1samp([1, 2, 3], than).pvalue for than in (0, 1)}
    assert p({"point": "> 0"}, 1, 2, 3) == pytest.approx(apart[0], rel=1e-4)
    assert p({"direction": "greater", "point": "> 1"}, 1, 2, 3) == pytest.approx(apart[1], rel=1e-4), "needs both"
    assert p({"direction": "less", "point": "> 1"}, 1, 2, 3) == pytest.approx(apart[0], rel=1e-4), "one is enough"
    assert p({"direction": "greater", "than": 2}, 1, 2, 3) == 1.0
    assert p({"direction": "greater"}, 2, 2, 2) == 1e-9, "an interval without width"
    assert math.isnan(p({"direction": "greater"}, 2))


def outcome(*values, criterion=None):
    claim = Claim(
        claim="A",
        paper=None,
        statistic={"metric": "score", "contrast": "a"},
        criterion=criterion or {"direction": "greater"},
    )
    return judge(claim, {"a": {seed: {"": value} for seed, value in enumerate(values)}}, [], [])


def test_a_verdict_that_does_not_outlast_the_correction_is_withdrawn():
    clear, close, none = outcome(9, 10, 11), outcome(2, 3, 4.9, 1, 4), outcome(1, -1, 0.3)
    assert close.verdict == "SHOWN"
    assert close.p == pytest.approx(stats.ttest_1samp([2, 3, 4.9, 1, 4], 0).pvalue, rel=1e-4)
    together = judge_together(
        [("confirmatory", close), *[("exploratory", one) for one in (clear, close, none, none, none)], ("check", close)]
    )
    assert [kind for kind, _ in together] == ["confirmatory", *["exploratory"] * 5, "check"]
    found = [one for _, one in together]
    assert [one.verdict for one in found] == [
        "SHOWN",
        "SHOWN",
        "INCONCLUSIVE",
        *["INCONCLUSIVE"] * 3,
        "SHOWN",
    ], "the confirmatory claim and checks are not corrected"
    assert found[0] == close
    assert found[1].corrected_p == pytest.approx(5 * clear.p)
    assert found[2].corrected_p == pytest.approx(4 * close.p)
    assert found[2].notes[-1].startswith("SHOWN by its own interval (p = 0.013)")
    assert found[3].notes == none.notes


def test_a_reversal_is_withdrawn_like_any_other():
    reverse = outcome(-2, -3, -4.9, -1, -4)
    assert (reverse.verdict, reverse.reversed) == ("NOT SHOWN", True)
    alone, *_ = judge_together([("exploratory", reverse)])
    assert alone[1].verdict == "NOT SHOWN"
    first, *_ = judge_together([("exploratory", reverse)] * 5)
    assert (first[1].verdict, first[1].reversed) == ("INCONCLUSIVE", False)


def test_bootstraps_have_a_p_value_too():
    claim = Claim(
        claim="A",
        paper=None,
        statistic={"metric": "r.jsonl#x", "contrast": "a", "paired_by": ["seed", "id"], "test": "two_level_bootstrap"},
        criterion={"direction": "greater"},
    )
    values = {seed: {f"{seed} {row}": 0.3 + (row % 5) - 2 for row in range(50)} for seed in range(5)}
    found = judge(claim, {"a": values}, [], [])
    at = intervals(values, claim.statistic)
    assert 0 < found.p < 1
    assert at(1 - found.p).low == pytest.approx(0, abs=1e-3)
    assert (found.verdict == "SHOWN") == (found.p <= 0.05)
