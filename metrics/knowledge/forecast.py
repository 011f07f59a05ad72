"""Does knowledge accumulate? A forecast from single exposures, and facts shown at different intervals.

The idea of arXiv 2406.11813, section 4.4: a fact that comes back only after its last gain is forgotten is never
learned. This file adds what the paper does not test: the sum of decayed gains against what was observed, and the
interval at which the level before each exposure stops rising.

Shape suffixes: P probes, N exposures, B bootstrap draws.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from metrics.knowledge.sample import Sample
from metrics.knowledge.statistics import Settings, estimate


def forecast(sample: Sample, a: float, b: float) -> dict:
    """Predict each probe's gain at the end as the sum of its exposures' gains, each decayed by its age.

    predicted = sum_i E_i max(0, b - a log10(T - t_LAM,i)), with a and b fitted where there was one exposure only.

    Returns: means of prediction and observation (nats), Pearson's r over probes, and the number of probes.
    """
    left_PN = np.maximum(0.0, b - a * np.log10(np.maximum(sample.age_PN, 1.0)))
    terms_PN = np.where(sample.age_PN > 0, left_PN, 1.0) * sample.effectivity_PN
    # NaN pads the shorter schedules: those exposures never were.
    predicted_P = np.where(np.isfinite(sample.end_P), np.nansum(terms_PN, axis=1), np.nan)
    known = np.isfinite(predicted_P)
    predicted, observed = predicted_P[known], sample.end_P[known]
    spread = len(predicted) > 2 and np.ptp(predicted) > 0 and np.ptp(observed) > 0
    return {
        "predicted": float(predicted.mean()) if known.any() else np.nan,
        "observed": float(observed.mean()) if known.any() else np.nan,
        "pearson_r": float(stats.pearsonr(predicted, observed).statistic) if spread else np.nan,
        "n": int(known.sum()),
    }


def popularity(sample: Sample, settings: Settings) -> dict | None:
    """Level gained from one exposure to the next, by interval; None when all facts share one.

    Returns: `intervals`, a list of {interval, slope: {value, low, high} in nats per exposure, n_probes}, and
    `threshold`, the shortest interval whose slope cannot be told from zero, as of a single passage; None when all can.
    """
    # Waves of a crowded step move exposures by a step or two: intervals within a factor of 1.5 are one.
    lowest: list[float] = []
    for interval in np.unique(sample.interval_P[np.isfinite(sample.interval_P)]):
        if not lowest or interval > 1.5 * lowest[-1]:
            lowest.append(interval)
    if len(lowest) < 2:
        return None
    bounds = zip(lowest, [*lowest[1:], np.inf], strict=True)
    members = [sample.rows((sample.interval_P >= low) & (sample.interval_P < high)) for low, high in bounds]
    groups = {int(np.median(group.interval_P)): group for group in members}
    slopes = {interval: estimate(_slope, group, settings) for interval, group in groups.items()}
    return {
        "intervals": [{"interval": i, "slope": slopes[i], "n_probes": len(group)} for i, group in groups.items()],
        "threshold": min((interval for interval, slope in slopes.items() if not slope["low"] > 0), default=None),
    }


def _slope(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
    """Mean over probes of the least-squares slope of l(t_i) over i, [B]."""
    known_PN = np.isfinite(sample.level_PN)
    n_P1 = known_PN.sum(axis=1, keepdims=True)
    i_PN = np.broadcast_to(np.arange(sample.level_PN.shape[1], dtype=np.float64), known_PN.shape)
    centred_PN = np.where(
        known_PN, i_PN - np.where(known_PN, i_PN, 0).sum(axis=1, keepdims=True) / np.maximum(n_P1, 1), 0
    )
    use_P = n_P1[:, 0] >= 2
    slopes_P = (centred_PN * np.nan_to_num(sample.level_PN)).sum(axis=1)[use_P] / (centred_PN**2).sum(axis=1)[use_P]
    with np.errstate(invalid="ignore"):
        return weights_BP[:, use_P] @ slopes_P / weights_BP[:, use_P].sum(axis=1)
