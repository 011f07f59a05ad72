"""Intervals against scipy, and what a cluster bootstrap must do that a plain one does not."""

import numpy as np
import pytest
from scipy import stats

from metrics.intervals import bootstrap_interval, cluster_bootstrap, cluster_weights, t_interval, wilson_interval


def test_t_interval_by_hand_and_by_scipy():
    # sd of [1, 2, 3, 4] = 1.290994, sem = 0.645497, t(0.975, 3) = 3.182446
    interval = t_interval([1, 2, 3, 4])
    assert (interval.mean, interval.n) == (2.5, 4)
    assert interval.low == pytest.approx(2.5 - 3.182446 * 0.645497, abs=1e-5)
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (t_interval(values, 0.9).low, t_interval(values, 0.9).high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 20), (20, 20)])
def test_wilson_interval_by_its_formula(successes, n):
    share, z = successes / n, stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    interval = wilson_interval(successes, n)
    assert (interval.mean, interval.n) == (share, n)
    assert (interval.low, interval.high) == pytest.approx((middle - half, middle + half), abs=1e-12)


@pytest.mark.parametrize("interval", [t_interval, bootstrap_interval, lambda v: cluster_bootstrap(np.array(v), v)])
def test_too_little_for_an_interval(interval):
    one = interval([3.0])
    assert one.mean == 3.0
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(interval([]).mean)


@pytest.mark.oracle("KnowledgeReport.resamples")
def test_bootstrap_interval_is_scipys():
    values = np.random.default_rng(1).exponential(size=40)
    ours = bootstrap_interval(values, np.median, resamples=500, seed=3)
    theirs = stats.bootstrap(
        (values,), np.median, n_resamples=500, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (ours.mean, ours.low, ours.high) == (np.median(values), theirs.low, theirs.high)


def test_clusters_of_one_are_the_plain_bootstrap():
    """The same draws as scipy's, not just the same distribution."""
    values = np.random.default_rng(2).normal(size=25)
    ours = cluster_bootstrap(values, list(range(25)), resamples=400, seed=5)
    theirs = bootstrap_interval(values, resamples=400, seed=5)
    assert (ours.mean, ours.low, ours.high) == pytest.approx((theirs.mean, theirs.low, theirs.high), abs=1e-12)


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


def test_coverage_of_the_cluster_bootstrap():
    """A 95 % interval of the mean of 30 clusters of unequal size covers the truth in about 95 % of 200 worlds."""
    rng = np.random.default_rng(4)
    hits = 0
    for world in range(200):
        sizes = rng.integers(1, 6, 30)
        clusters = np.repeat(np.arange(30), sizes)
        values = np.repeat(rng.normal(size=30), sizes) + 0.3 * rng.normal(size=sizes.sum())
        interval = cluster_bootstrap(values, clusters.tolist(), resamples=300, seed=world)
        hits += interval.low <= 0 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_same_input_same_interval_whatever_the_labels():
    values = np.random.default_rng(5).normal(size=30)
    numbers = [i // 3 for i in range(30)]
    words = [f"passage {17 * n % 10}" for n in numbers]
    assert cluster_bootstrap(values, numbers) == cluster_bootstrap(values, words)
    assert cluster_bootstrap(values, numbers, seed=1) != cluster_bootstrap(values, numbers)
