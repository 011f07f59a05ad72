"""Correlations: worked values, torchmetrics as the oracle, what is missing or constant, batches and ranks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import kendall_rank_corrcoef, pearson_corrcoef, spearman_corrcoef

from metrics.judging import JudgeCorrelation, ScoreAccuracy, kendall, krippendorff_alpha, pearson, spearman
from text.errors import UserError

X, Y = (torch.tensor(scores, dtype=torch.float64) for scores in ([1, 2, 3, 4, 5, 3], [2, 2, 3, 5, 4, 3]))
ALL = [pearson, spearman, kendall]


def test_worked_values():
    # Pearson by hand: squares sum to 10 and 41/6 about the means, products to 7
    assert float(pearson(X, Y)) == pytest.approx(7 / (10 * 41 / 6) ** 0.5, abs=1e-12)
    assert [round(float(one(X, Y)), 6) for one in ALL] == [0.846802, 0.925476, 0.815374]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(-3, 3, width=16)), min_size=2, max_size=30))
def test_torchmetrics_agrees(rows):
    x, y = torch.tensor(rows, dtype=torch.float64).T
    if len(x.unique()) < 2 or float(y.std()) < 1e-3:
        return
    oracles = [pearson_corrcoef, spearman_corrcoef, lambda a, b: kendall_rank_corrcoef(a, b, variant="b")]
    for ours, theirs in zip(ALL, oracles, strict=True):
        torch.testing.assert_close(ours(x, y), theirs(x, y).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("coefficient", ALL)
def test_order_missing_scores_and_types(coefficient):
    expected = coefficient(X, Y)
    assert expected.dtype == torch.float64
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(coefficient(X[order], Y[order]), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(coefficient(Y, X), expected, atol=1e-12, rtol=0)
    nan = torch.tensor([math.nan])
    holes = coefficient(torch.cat([X, nan, X[:1]]), torch.cat([Y, Y[:1], nan]))
    torch.testing.assert_close(holes, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(coefficient(X.long(), Y.float()), expected, atol=1e-12, rtol=0)
    # beyond what float32 can tell apart
    assert float(coefficient(X * 1e-12 + 1, Y)) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("coefficient", ALL)
@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1.0], [2.0]), ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]), ([1, math.nan], [1, 2])]
)
def test_nothing_to_correlate_is_nan_with_a_warning(coefficient, x, y):
    with pytest.warns(UserWarning, match="constant"):
        assert coefficient(torch.tensor(x), torch.tensor(y)).isnan()


def test_shapes_are_checked():
    for x, y in [(X, Y[:3]), (X[None], Y[None])]:
        with pytest.raises(ValueError, match="one length"):
            pearson(x, y)


GROUPS = ("planning", "safety", "never")
SCORES = [1, 2, [3, 3, None], 4, 5, 3, None, 2, 3, 4]
GOLD = [2, 2, 3, 5, [4, 4], 3, 3, 1, 3, 2]
LABELS = ["planning"] * 7 + ["safety"] * 3


def test_judge_correlation_by_group():
    metric = JudgeCorrelation(GROUPS)
    metric.update(SCORES, GOLD, LABELS)
    found = metric.compute()
    x = torch.cat([X, torch.tensor([2.0, 3.0, 4.0])])
    y = torch.cat([Y, torch.tensor([1.0, 3.0, 2.0])])
    assert found["pearson"] == pytest.approx(float(pearson(x, y)), abs=1e-12)
    assert found["alpha"] == pytest.approx(float(krippendorff_alpha(torch.stack([x, y]), "ordinal")), abs=1e-12)
    assert found["n"] == 9
    assert found["n_excluded"] == found["planning/n_excluded"] == 1
    assert found["planning/kendall"] == pytest.approx(0.815374, abs=1e-6)
    assert found["safety/pearson"] == pytest.approx(0.5)  # 2 3 4 with 1 3 2
    assert found["mean/pearson"] == pytest.approx((0.846802 + 0.5) / 2, abs=1e-6)  # nothing of the third group
    assert found["never/n"] == 0
    assert math.isnan(found["never/pearson"])


def test_batches_and_ranks_give_the_same_bits():
    whole, first, second = (JudgeCorrelation(GROUPS) for _ in range(3))
    whole.update(SCORES, GOLD, LABELS)
    for low, high, rank in [(7, 10, first), (0, 1, first), (4, 7, second), (1, 4, second)]:
        rank.update(SCORES[low:high], GOLD[low:high], LABELS[low:high])
    first.merge_state(second)
    found, expected = first.compute(), whole.compute()
    assert {k: v for k, v in found.items() if v == v} == {k: v for k, v in expected.items() if v == v}
    first.reset()
    assert first.compute()["n"] == 0


def test_tensors_of_runs():
    metric = JudgeCorrelation()
    metric.update(torch.tensor([[1.0, math.nan], [2, 2], [3, 5], [math.nan, math.nan]]), torch.tensor([1, 2, 4, 5]))
    found = metric.compute()
    assert found["pearson"] == pytest.approx(1)
    assert found["n_excluded"] == 1


def test_groups_are_checked():
    metric = JudgeCorrelation(("planning",))
    with pytest.raises(UserError, match="'safty' is not a known group: planning"):
        metric.update([1], [2], ["safty"])
    with pytest.raises(UserError, match="2 items need a group"):
        metric.update([1, 2], [2, 3])
    with pytest.raises(ValueError, match="1 scores and 2"):
        JudgeCorrelation().update([1], [2, 3])


def test_score_accuracy():
    metric, other = ScoreAccuracy(), ScoreAccuracy()
    metric.update([5, 3, None], [5, 1, 4])
    other.update([2, 4], [2, None])  # nothing to compare with
    metric.merge_state(other)
    found = metric.compute()
    assert found["accuracy"] == pytest.approx(2 / 4)
    assert found["mae"] == pytest.approx(2 / 3)
    assert found["parse_failure_rate"] == pytest.approx(1 / 4)
    assert found["n"] == 4
    assert math.isnan(ScoreAccuracy().compute()["accuracy"])
