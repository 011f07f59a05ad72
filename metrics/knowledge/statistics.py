"""What a sample of probes says, with intervals over passages.

Every statistic is a function of weighted sums: a bootstrap draw is a row of weights that says how often each probe was
drawn, whole passages at a time (metrics/intervals.py), so a thousand draws are one matrix product. The first row of
weights is all ones: the estimate itself. Outliers and probes without a gain are singled out once, in the whole sample.

This file knows samples and numbers. It does not know which comparisons the paper makes (metrics/knowledge/report.py).

Shape suffixes: B draws, P probes, N exposures, G points of elapsed time, T points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metrics.intervals import cluster_weights, fewest_clusters, small_sample_bounds
from metrics.knowledge import decay, definitions
from metrics.knowledge.sample import Sample


@dataclass(frozen=True)
class Settings:
    """Choices of the analysis; the defaults are the paper's where it has one.

    Attributes:
        iqr_factor: reach of the outlier filter, in interquartile ranges.
        min_gain: probes that gained no more than this many nats have no retainability.
        resamples: bootstrap draws.
        level: coverage of the intervals.
        seed: of the bootstrap.
    """

    iqr_factor: float = 1.5
    min_gain: float = 1e-3
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0


Statistic = Callable[[Sample, np.ndarray, Settings], np.ndarray]  # weights [B, P] -> [B, ...]


def point(statistic: Statistic, sample: Sample, settings: Settings) -> np.ndarray:
    """A statistic of one sample without an interval."""
    return statistic(sample, np.ones((1, len(sample))), settings)[0]


def estimate(statistic: Statistic, sample: Sample, settings: Settings) -> dict:
    """A statistic of one sample: value, low, high; lists where the statistic is a curve."""
    weights_BP, n = _weights([sample], settings)
    return _bounds(statistic(sample, weights_BP, settings), n, settings)


def contrast(statistic: Statistic, one: Sample, other: Sample, settings: Settings) -> dict:
    """The difference of a statistic between two samples: value, low, high.

    Passages that are in both samples (a crossed design) move together, so what is theirs alone cancels.
    """
    weights_BP, n = _weights([one, other], settings)
    draws_B = statistic(one, weights_BP[:, : len(one)], settings) - statistic(
        other, weights_BP[:, len(one) :], settings
    )
    return _bounds(draws_B, n, settings)


def _weights(samples: list[Sample], settings: Settings) -> tuple[np.ndarray, int]:
    """All ones, then the draws, [1 + B, P of all samples]; and how few passages there are to draw from.

    Passages are drawn among those that are in the same samples, so that no draw leaves a sample empty.
    """
    clusters = [cluster for sample in samples for cluster in sample.clusters]
    sets = [set(sample.clusters) for sample in samples]
    strata = [tuple(cluster in members for members in sets) for cluster in clusters]
    draws_BP = cluster_weights(clusters, strata=strata, resamples=settings.resamples, seed=settings.seed)
    return np.concatenate([np.ones((1, len(clusters))), draws_BP]), fewest_clusters(clusters, strata)


def _bounds(draws: np.ndarray, n: int, settings: Settings) -> dict:
    """Estimate and interval; no interval from a single passage."""
    low, high = small_sample_bounds(draws[0], draws[1:], n, settings.level)
    return {"value": draws[0].tolist(), "low": low.tolist(), "high": high.tolist()}


def within(found: dict, lowest: float, highest: float) -> dict:
    """An estimate whose bounds do not leave the range of what is estimated."""
    return found | {side: float(np.clip(found[side], lowest, highest)) for side in ("low", "high")}


def weighted_mean(values_PX: np.ndarray, keep_PX: np.ndarray, weights_BP: np.ndarray) -> np.ndarray:
    """Mean over the kept entries of each column, [B, X]; NaN where none is drawn."""
    with np.errstate(invalid="ignore"):
        return weights_BP @ np.where(keep_PX, values_PX, 0.0) / (weights_BP @ keep_PX.astype(np.float64))


# ---------------------------------------------------------------- acquisition


def mean_effectivity(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Definition 2 over all probes and exposures, outliers left out; nats, [B]."""
    keep_PN = definitions.iqr_keep(sample.effectivity_PN, settings.iqr_factor)
    sums_P1 = np.where(keep_PN, sample.effectivity_PN, 0.0).sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (weights_BP @ sums_P1 / (weights_BP @ keep_PN.sum(axis=1, keepdims=True).astype(np.float64)))[:, 0]


def unfiltered_effectivity(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Definition 2 over all probes and exposures, none left out; nats, [B]."""
    known_PN = np.isfinite(sample.effectivity_PN)
    sums_P1 = np.where(known_PN, sample.effectivity_PN, 0.0).sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (weights_BP @ sums_P1 / (weights_BP @ known_PN.sum(axis=1, keepdims=True).astype(np.float64)))[:, 0]


def effectivity_by_exposure(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """The same for each exposure by itself, [B, N]."""
    keep_PN = definitions.iqr_keep(sample.effectivity_PN, settings.iqr_factor, axis=0)
    return weighted_mean(sample.effectivity_PN, keep_PN, weights_BP)


def mean_of(name: str) -> Statistic:
    """Mean of a field [P] of the sample, such as "gain_P"; nats, [B]."""

    def statistic(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
        values_P1 = getattr(sample, name)[:, None]
        return weighted_mean(values_P1, np.isfinite(values_P1), weights_BP)[:, 0]

    return statistic


def mean_change(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Mean of l(T) - l(t_LAM): what happened to the gain until the end of the run; nats, [B]."""
    change_P1 = (sample.end_P - sample.gain_P)[:, None]
    return weighted_mean(change_P1, np.isfinite(change_P1), weights_BP)[:, 0]


def mean_curve(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Mean of l(t) - l(0), nats, [B, T]."""
    return weighted_mean(sample.curve_PT, np.isfinite(sample.curve_PT), weights_BP)


# ---------------------------------------------------------------- retention


def retained_share(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Ratio of means: what the probes kept over what they had gained, [B, G]."""
    keep_P = definitions.kept_probes(sample.gain_P, settings.min_gain)
    return _ratio(sample.retained_PG, sample.gain_P, keep_P, weights_BP)


def net_retained_share(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Counterfactual: the same of l minus the paired control run's l, [B, G]."""
    keep_P = definitions.kept_probes(sample.net_gain_P, settings.min_gain)
    return _ratio(sample.net_retained_PG, sample.net_gain_P, keep_P, weights_BP)


def mean_retainability(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Mean of ratios, the paper's average: at each t over the probes, outliers of that t left out, [B, G]."""
    ratios_PG = definitions.retainability(sample.retained_PG, sample.gain_P, settings.min_gain)
    return weighted_mean(ratios_PG, definitions.iqr_keep(ratios_PG, settings.iqr_factor, axis=0), weights_BP)


def _ratio(kept_PG: np.ndarray, gain_P: np.ndarray, keep_P: np.ndarray, weights_BP: np.ndarray) -> np.ndarray:
    weights_BP = weights_BP[:, keep_P]
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights_BP @ kept_PG[keep_P] / (weights_BP @ gain_P[keep_P])[:, None]


# ---------------------------------------------------------------- forgetting


def decay_draws(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """a, b, R2 and tau (as an angle) of the line through the ratio of means at log-spaced t, [B, 4]."""
    fit_G = fit_points(sample)
    if fit_G.sum() < 2:
        return np.full((len(weights_BP), 4), np.nan)
    a_B, b_B, r2_B = decay.lines(sample.elapsed_G[fit_G], retained_share(sample, weights_BP, settings)[:, fit_G])
    return np.stack([a_B, b_B, r2_B, decay.tau_angles(a_B, b_B)], axis=1)


def log_linearity(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """R2 of the best line over log10 t that does not rise, [B]: 0 where the best of all does, for then it is level."""
    a_B, _, r2_B, _ = decay_draws(sample, weights_BP, settings).T
    return np.where(a_B <= 0, 0.0, r2_B)


def decay_constant(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """The decay constant a alone, [B]."""
    return decay_draws(sample, weights_BP, settings)[:, 0]


def fit_points(sample: Sample) -> np.ndarray:
    """Which points of the elapsed grid are fitted: log-spaced ones, bool [G]."""
    end = int(sample.elapsed_G[-1]) if len(sample.elapsed_G) else 0
    return np.isin(sample.elapsed_G, definitions.log_spaced(end))
