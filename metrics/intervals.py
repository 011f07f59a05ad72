"""Confidence intervals: of a mean over runs, of a statistic over examples, and over clusters of examples.

Everything is deterministic: a bootstrap is a function of its input and its seed. This file knows numbers and labels. It
does not know what was measured, nor which verdict an interval supports (studies/verdict.py).

Shape suffixes: B bootstrap resamples, P rows (examples, probes, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A point estimate with its two-sided confidence interval.

    Attributes:
        mean: the estimate (a mean unless another statistic was asked for).
        low: lower bound, NaN where the sample is too small for one.
        high: upper bound, NaN likewise.
        n: how many independent units stand behind it: runs, examples or clusters.
    """

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t-interval of a mean of independent values (one per seed, say).

    Args:
        values: the sample, any length. With no value everything is NaN, with one the bounds are.
        level: coverage.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    mean = float(sample.mean()) if n else np.nan
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    half = stats.sem(sample) * stats.t.ppf((1 + level) / 2, n - 1)
    return Interval(mean, float(mean - half), float(mean + half), n)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval of a share (1927), which holds near 0 and 1 too.

    Args:
        successes: how many of the n.
        n: independent trials, at least one.
        level: coverage.
    """
    bounds = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable = np.mean,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over independent values.

    Args:
        values: the sample.
        statistic: vectorised over an `axis` keyword, as numpy's reductions are.
        resamples: number of bootstrap samples.
        level: coverage.
        seed: of the resampling.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(statistic(sample, axis=0)) if len(sample) else np.nan
    if len(sample) < 2:
        return Interval(mean, np.nan, np.nan, len(sample))
    result = stats.bootstrap(
        (sample,),
        statistic,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high), len(sample))


def weighted_mean(values_P: np.ndarray, weights_BP: np.ndarray) -> np.ndarray:
    """Mean of the rows in each resample, [B]."""
    return weights_BP @ values_P / weights_BP.sum(axis=1)


def cluster_bootstrap(
    values: np.ndarray,
    clusters: Sequence[Hashable],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray] = weighted_mean,
    *,
    strata: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap in which all rows of a cluster are drawn together.

    Rows that share a source (the probes of one passage, the samples of one prompt) are not independent; their source is
    the unit that is drawn. A resample is a row of weights: how often each row of `values` was drawn.

    Args:
        values: [P, ...], handed to `statistic` as it is.
        clusters: [P] label of each row's source.
        statistic: `(values [P, ...], weights [B, P]) -> [B]`; B = 1 with unit weights gives the point estimate.
        strata: [P] clusters are drawn within their stratum, so that no resample loses a whole group. All rows of a
            cluster must be of one stratum.
        resamples: number of bootstrap samples.
        level: coverage.
        seed: of the resampling.

    Returns: the statistic with its interval; `n` counts clusters. The bounds are NaN with fewer than two clusters.
    """
    weights_BP = cluster_weights(clusters, strata=strata, resamples=resamples, seed=seed)
    n = len(set(clusters))
    mean = float(statistic(values, np.ones((1, len(clusters))))[0]) if n else np.nan
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    low, high = percentile_bounds(statistic(values, weights_BP), level)
    return Interval(mean, float(low), float(high), n)


def cluster_weights(
    clusters: Sequence[Hashable], *, strata: Sequence[Hashable] | None = None, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """How often each row is drawn when whole clusters are drawn with replacement, float64 [B, P].

    Args:
        clusters: [P] label of each row's source.
        strata: [P] labels within which clusters are drawn; one stratum when left out.
        resamples: B.
        seed: of the resampling.
    """
    strata = [0] * len(clusters) if strata is None else strata
    # Labels are numbered in order of appearance: the draw must not depend on how they sort or hash.
    numbers: dict[Hashable, int] = {}
    members: dict[Hashable, list[int]] = {}
    for cluster, stratum in zip(clusters, strata, strict=True):
        if cluster not in numbers:
            numbers[cluster] = len(numbers)
            members.setdefault(stratum, []).append(numbers[cluster])
    rng = np.random.default_rng(seed)
    counts_BC = np.zeros((resamples, len(numbers)))
    for ids in members.values():
        drawn = rng.integers(0, len(ids), (resamples, len(ids)))
        np.add.at(counts_BC, (np.arange(resamples)[:, None], np.asarray(ids)[drawn]), 1.0)
    return counts_BC[:, [numbers[cluster] for cluster in clusters]]


def percentile_bounds(draws_B: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper percentile bound over the first axis of bootstrap draws; NaN where any draw is."""
    low, high = np.percentile(draws_B, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return low, high
