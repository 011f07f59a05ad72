"""Confidence intervals: of means over runs, of shares, of means over strata, and of any statistic over clusters.

All are meant for small samples. tests/metrics/test_coverage.py simulates how often each covers the truth at 3, 5, 10
and 30 independent units; docs/studies.md has the table. A sample without any spread gets an interval without width.
Everything is deterministic: a bootstrap is a function of its input and its seed. This file knows numbers and labels. It
does not know what was measured, nor which verdict an interval supports (studies/verdict.py).

Shape suffixes: B bootstrap resamples, P rows (examples, probes, ...), C clusters, H strata.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats


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

    def within(self, lowest: float, highest: float) -> Interval:
        """The same without what lies beyond the ends of the scale: no mean of grades from 1 to 5 is below 1."""
        low, high = np.clip([self.low, self.high], lowest, highest).tolist()  # NaN stays NaN
        return replace(self, low=low, high=high)


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t-interval of a mean of independent values (one per seed, say).

    Args:
        values: the sample, any length. With no value everything is NaN, with one the bounds are.
        level: coverage.
    """
    n = len(values)
    mean = float(statistics.mean(values)) if n else np.nan  # exact: a mean of equal values is that value
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    half = stats.sem(np.asarray(values, dtype=np.float64)) * _t(level, n - 1) if min(values) < max(values) else 0.0
    return Interval(mean, float(mean - half), float(mean + half), n)


def share_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval of a share (1934): covers at the level or above, whatever the share and n.

    Args:
        successes: how many of the n.
        n: independent trials, at least one.
        level: coverage.
    """
    bounds = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def bounded_interval(values: Sequence[float], lowest: float, highest: float, level: float = 0.95) -> Interval:
    """Interval of the mean of independent values that can lie between two ends only: verdicts, where draws count half.

    Agresti and Coull's interval of a share (1998), for values between the ends too: z^2 / 2 further observations are
    imagined at each end, and the mean of all has a t-interval. So three verdicts that are all wins do not prove that
    there are no losses. With many values it is Student's interval.

    Args:
        values: the sample, any length. With no value everything is NaN, with one the bounds are.
        lowest: the lower end.
        highest: the upper end.
        level: coverage.
    """
    sample, n = np.asarray(values, dtype=np.float64), len(values)
    estimate = float(statistics.mean(values)) if n else np.nan
    if n < 2:
        return Interval(estimate, np.nan, np.nan, n)
    imagined = special.ndtri((1 + level) / 2) ** 2 / 2  # at each end
    total = n + 2 * imagined
    mean = (sample.sum() + imagined * (lowest + highest)) / total
    squares = ((sample - mean) ** 2).sum() + imagined * ((lowest - mean) ** 2 + (highest - mean) ** 2)
    half = np.sqrt(squares) / total * _t(level, total - 1)
    return Interval(estimate, float(max(lowest, mean - half)), float(min(highest, mean + half)), n)


def stratified_interval(
    values: np.ndarray, coefficients: np.ndarray, strata: Sequence[Hashable], level: float = 0.95
) -> Interval:
    """t-interval of a weighted sum of independent values of several strata, which are part of the design.

    The variance is that within strata, with Satterthwaite's degrees of freedom (1946).

    Args:
        values: [P].
        coefficients: [P] how much each value counts.
        strata: [P] label of each value's stratum; see `collapsed` for strata of one value.
        level: coverage.

    Returns: the weighted sum with its interval; the bounds are NaN where a stratum has one value.
    """
    estimate, numbers = float(coefficients @ values), {label: n for n, label in enumerate(dict.fromkeys(strata))}
    of_P = np.array([numbers[label] for label in strata], dtype=np.int64)
    n_H = np.bincount(of_P, minlength=len(numbers))
    if not len(n_H) or n_H.min() < 2:
        return Interval(estimate if len(n_H) else np.nan, np.nan, np.nan, len(strata))
    mean_H = np.bincount(of_P, weights=values) / n_H
    variance_H = np.bincount(of_P, weights=(values - mean_H[of_P]) ** 2) / (n_H - 1)
    part_H = variance_H * np.bincount(of_P, weights=coefficients**2)
    if not (variance := part_H.sum()) > 0:
        return Interval(estimate, estimate, estimate, len(strata))
    half = np.sqrt(variance) * _t(level, variance**2 / (part_H**2 / (n_H - 1)).sum())
    return Interval(estimate, float(estimate - half), float(estimate + half), len(strata))


def collapsed(strata: Sequence[Hashable]) -> list[Hashable]:
    """Strata in which nothing is alone: of one unit nothing tells the spread, and none is not what it is.

    Strata of one unit become one; where there is but one such, it joins the smallest other. The spread between them
    then counts as spread within, so that intervals come out wide rather than narrow (Cochran 1977, section 5A.12).

    Args:
        strata: label of each unit's stratum.
    """
    sizes = {label: 0 for label in strata}
    for label in strata:
        sizes[label] += 1
    alone = [label for label, size in sizes.items() if size == 1]
    if not alone or len(sizes) == 1:
        return list(strata)
    others = [label for label in sizes if sizes[label] > 1]
    home = alone[0] if len(alone) > 1 or not others else min(others, key=lambda label: sizes[label])
    return [home if sizes[label] == 1 else label for label in strata]


def weighted_mean(values_P: np.ndarray, weights_BP: np.ndarray) -> np.ndarray:
    """Mean of the rows in each resample, [B]."""
    return weights_BP @ values_P / weights_BP.sum(axis=1)


def cluster_bootstrap(
    values: np.ndarray,
    clusters: Sequence[Hashable],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray] = weighted_mean,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap in which all rows of a cluster are drawn together, corrected for small numbers of clusters.

    Rows that share a source (the probes of one passage, the samples of one prompt) are not independent; their source is
    the unit that is drawn. A resample is a row of weights: how often each row of `values` was drawn.

    Args:
        values: [P, ...], handed to `statistic` as it is.
        clusters: [P] label of each row's source.
        statistic: `(values [P, ...], weights [B, P]) -> [B]`; B = 1 with unit weights gives the point estimate.
        resamples: number of bootstrap samples.
        level: coverage.
        seed: of the resampling.

    Returns: the statistic with its interval; `n` counts clusters. The bounds are NaN with fewer than two clusters.
    """
    n = len(set(clusters))
    estimate = statistic(values, np.ones((1, len(clusters)))) if n else np.array([np.nan])
    if n < 2:
        return Interval(float(estimate[0]), np.nan, np.nan, n)
    draws_B = statistic(values, cluster_weights(clusters, resamples=resamples, seed=seed))
    low, high = small_sample_bounds(estimate[0], draws_B, n, level)
    return Interval(float(estimate[0]), float(low), float(high), n)


def cluster_weights(
    clusters: Sequence[Hashable], *, strata: Sequence[Hashable] | None = None, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """How often each row is drawn when whole clusters are drawn with replacement, float64 [B, P].

    Args:
        clusters: [P] label of each row's source.
        strata: [P] labels within which clusters are drawn; one stratum when left out. All rows of a cluster must be of
            one stratum. Strata of one cluster are `collapsed`.
        resamples: B.
        seed: of the resampling.
    """
    numbers, members = _members(clusters, strata)
    rng = np.random.default_rng(seed)
    counts_BC = np.zeros((resamples, len(numbers)))
    for ids in members:
        drawn = rng.integers(0, len(ids), (resamples, len(ids)))
        np.add.at(counts_BC, (np.arange(resamples)[:, None], np.asarray(ids)[drawn]), 1.0)
    return counts_BC[:, [numbers[cluster] for cluster in clusters]]


def fewest_clusters(clusters: Sequence[Hashable], strata: Sequence[Hashable] | None = None) -> int:
    """Clusters of the smallest stratum among which `cluster_weights` draws; 0 where there are none."""
    return min(map(len, _members(clusters, strata)[1]), default=0)


def _members(
    clusters: Sequence[Hashable], strata: Sequence[Hashable] | None
) -> tuple[dict[Hashable, int], list[list[int]]]:
    """The number of each cluster, and the numbers in each stratum."""
    # Labels are numbered in order of appearance: the draw must not depend on how they sort or hash.
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    stratum = dict(zip(clusters, [0] * len(clusters) if strata is None else strata, strict=True))
    members: dict[Hashable, list[int]] = {}
    for number, label in enumerate(collapsed([stratum[cluster] for cluster in numbers])):
        members.setdefault(label, []).append(number)
    return numbers, [*members.values()]


def small_sample_bounds(
    estimate: np.ndarray | float, draws: np.ndarray, n: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds from bootstrap draws of n units, wide enough for few of them; NaN where any draw is, or n is below two.

    Draws have the spread of the sample, sqrt((n - 1) / n) of what is there, and their percentiles are a normal
    distribution's at best, where few units ask for Student's: distances from the estimate are stretched by both. Few
    units leave few different draws, and their percentiles jump; so the bounds are never nearer than those of a
    t-interval by the standard error of the draws.

    Args:
        estimate: of the whole sample, [...].
        draws: [B, ...].
        n: units that were drawn.
        level: coverage.
    """
    estimate = np.asarray(estimate)
    if n < 2:
        return np.nan * estimate, np.nan * estimate
    larger, t = np.sqrt(n / (n - 1)), _t(level, n - 1)
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)], axis=0) - estimate
    stretch, error = larger * t / special.ndtri((1 + level) / 2), larger * t * np.std(draws, axis=0, ddof=1)
    return estimate + np.minimum(stretch * low, -error), estimate + np.maximum(stretch * high, error)


def _t(level: float, df: float) -> float:
    return float(special.stdtrit(df, (1 + level) / 2))  # the quantile that stats.t.ppf gives, without its overhead
