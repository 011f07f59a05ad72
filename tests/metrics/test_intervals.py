"""Intervals against scipy, and what a cluster bootstrap must do that a plain one does not."""

import numpy as np
import pytest
from scipy import stats

from metrics.intervals import (
    Interval,
    bounded_interval,
    cluster_bootstrap,
    cluster_weights,
    collapsed,
    fewest_clusters,
    share_interval,
    small_sample_bounds,
    stratified_interval,
    t_interval,
)


def test_t_interval_by_hand_and_by_scipy():
    # sd of [1, 2, 3, 4] = 1.290994, sem = 0.645497, t(0.975, 3) = 3.182446
    interval = t_interval([1, 2, 3, 4])
    assert (interval.mean, interval.n) == (2.5, 4)
    assert interval.low == pytest.approx(2.5 - 3.182446 * 0.645497, abs=1e-5)
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (t_interval(values, 0.9).low, t_interval(values, 0.9).high) == pytest.approx(tuple(expected))


def test_equal_values_have_an_interval_without_width_at_that_very_value():
    assert t_interval([0.1] * 3) == Interval(0.1, 0.1, 0.1, 3)  # a sum of floats would give 0.10000000000000002


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 20), (20, 20), (2, 3)])
def test_share_interval_is_where_the_binomial_has_a_tail_of_its_own(successes, n):
    interval = share_interval(successes, n)
    assert (interval.mean, interval.n) == (successes / n, n)
    above, below = stats.binom.sf(successes - 1, n, interval.low), stats.binom.cdf(successes, n, interval.high)
    assert (above, below) == pytest.approx((0.025 if successes else 1, 0.025 if successes < n else 1))


def test_bounded_interval_is_agresti_and_coulls_and_becomes_students():
    # z^2 = 3.841459, so 6 of 10 become 7.920729 of 13.841459
    share, total = 7.920729 / 13.841459, 13.841459
    half = stats.t.ppf(0.975, total - 1) * np.sqrt(share * (1 - share) / total)
    interval = bounded_interval([1.0] * 6 + [0.0] * 4, 0, 1)
    assert (interval.mean, interval.n) == (0.6, 10)
    assert (interval.low, interval.high) == pytest.approx((share - half, share + half), abs=1e-6)
    percent = bounded_interval([100.0] * 6 + [0.0] * 4, 0, 100)
    assert (percent.low, percent.high) == pytest.approx((100 * interval.low, 100 * interval.high))
    many = np.random.default_rng(1).beta(2, 5, size=20000)
    ours, students = bounded_interval(many.tolist(), 0, 1), t_interval(many.tolist())
    assert (ours.low, ours.high) == pytest.approx((students.low, students.high), abs=1e-4)
    all_won = bounded_interval([1.0, 1.0, 1.0], 0, 1)
    assert (all_won.mean, all_won.high) == (1.0, 1.0)
    assert 0.2 < all_won.low < 0.5


@pytest.mark.parametrize(
    "interval",
    [
        t_interval,
        lambda v: bounded_interval(v, 0, 5),
        lambda v: cluster_bootstrap(np.array(v), v),
        lambda v: stratified_interval(np.array(v), np.ones(len(v)), v),
    ],
)
def test_too_little_for_an_interval(interval):
    one = interval([3.0])
    assert (one.mean, one.n) == (3.0, 1)
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(interval([]).mean)


def test_strata_by_hand():
    # Values 1, 3 of one stratum and 5, 5, 8 of another, weighed 1/4 each and 1/6 each: variances 2 and 3, of the
    # sum 2 x 2/16 + 3 x 3/36 = 1/4 + 1/4; Satterthwaite: (1/2)^2 / (1/16 / 1 + 1/16 / 2) = 8/3 degrees of freedom.
    values, weights = np.array([1.0, 3.0, 5.0, 5.0, 8.0]), np.array([1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])
    interval = stratified_interval(values, weights, list("aabbb"))
    half = stats.t.ppf(0.975, 8 / 3) * np.sqrt(1 / 2)
    assert (interval.low, interval.mean, interval.high) == pytest.approx((4 - half, 4, 4 + half))
    assert np.isnan(stratified_interval(values, weights, list("aabbc")).low)


def test_one_stratum_is_students_interval():
    values = np.random.default_rng(6).normal(size=9)
    ours, students = stratified_interval(values, np.full(9, 1 / 9), ["x"] * 9), t_interval(values.tolist())
    assert (ours.low, ours.mean, ours.high) == pytest.approx((students.low, students.mean, students.high))


def test_nothing_stays_alone_in_its_stratum():
    assert collapsed(list("aabbb")) == list("aabbb")
    assert collapsed(list("abacd")) == list("ababb"), "what is alone keeps company"
    assert collapsed(list("aaabbc")) == list("aaabbb"), "one that is alone joins the smallest"
    assert collapsed(["a"]) == ["a"]
    assert collapsed([]) == []
    weights = cluster_weights(list("vwxyz"), strata=list("aabcd"), resamples=400, seed=0)
    assert weights[:, 2:].std(axis=0).min() > 0
    np.testing.assert_array_equal(weights[:, 2:].sum(axis=1), 3.0)
    assert fewest_clusters(list("vvwxyz"), list("aaabcd")) == 2
    assert fewest_clusters([]) == 0


def test_bounds_are_stretched_to_students_and_keep_the_skew():
    draws = np.random.default_rng(7).normal(3.0, 0.5, size=400_000)
    low, high = small_sample_bounds(3.0, draws, 6)
    half = stats.t.ppf(0.975, 5) * np.sqrt(6 / 5) * 0.5
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=0.01)
    skewed = np.random.default_rng(8).exponential(size=400_000)
    low, high = small_sample_bounds(1.0, skewed, 400)
    assert high - 1 == pytest.approx((np.log(40) - 1) * stats.t.ppf(0.975, 399) / stats.norm.ppf(0.975), rel=0.02)
    assert 1 - low < high - 1
    curve = small_sample_bounds(np.zeros(2), np.stack([draws - 3, draws * np.nan], axis=1), 6)
    assert curve[1][0] == pytest.approx(half, rel=0.01)
    assert np.isnan(curve[1][1])
    assert np.isnan(small_sample_bounds(3.0, draws, 1)).all()


def test_many_clusters_of_one_value_are_students_interval():
    values = np.random.default_rng(2).normal(size=400)
    ours, students = cluster_bootstrap(values, range(400), resamples=20_000), t_interval(values.tolist())
    assert ours.mean == pytest.approx(students.mean, abs=1e-12)
    assert (ours.low - ours.mean, ours.high - ours.mean) == pytest.approx(
        (students.low - students.mean, students.high - students.mean), rel=0.03
    )


def test_rows_of_a_cluster_move_together():
    clusters = ["b", "a", "b", "c", "a"]
    weights = cluster_weights(clusters, resamples=200, seed=0)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3.0)
    assert weights.std() > 0


def test_copies_of_a_row_do_not_narrow_the_interval():
    values = np.random.default_rng(3).normal(size=12)
    once = cluster_bootstrap(values, range(12))
    ten_times = cluster_bootstrap(np.repeat(values, 10), np.repeat(np.arange(12), 10))
    assert (ten_times.low, ten_times.high) == pytest.approx((once.low, once.high))
    pretending = cluster_bootstrap(np.repeat(values, 10), range(120))
    assert pretending.high - pretending.low < 0.6 * (once.high - once.low)


def test_strata_keep_every_group():
    strata = ["x"] * 3 + ["y"] * 2
    weights = cluster_weights(list("abcde"), strata=strata, resamples=300, seed=1)
    np.testing.assert_array_equal(weights[:, :3].sum(axis=1), 3.0)
    np.testing.assert_array_equal(weights[:, 3:].sum(axis=1), 2.0)


def test_same_input_same_interval_whatever_the_labels():
    values = np.random.default_rng(5).normal(size=30)
    numbers = [i // 3 for i in range(30)]
    words = [f"passage {17 * n % 10}" for n in numbers]
    assert cluster_bootstrap(values, numbers) == cluster_bootstrap(values, words)
    assert cluster_bootstrap(values, numbers, seed=1) != cluster_bootstrap(values, numbers)
