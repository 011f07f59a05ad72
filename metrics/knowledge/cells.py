"""The statistics of one scenario and type: what was gained, what was kept, how fast it is lost.

This file knows one sample. It does not know the others it is compared with (metrics/knowledge/claims.py).
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from metrics.knowledge import decay
from metrics.knowledge import statistics as st
from metrics.knowledge.definitions import kept_probes
from metrics.knowledge.sample import Sample
from metrics.knowledge.statistics import Settings, estimate, mean_of


def describe(sample: Sample, injected: bool, settings: Settings) -> dict:
    """Statistics of one scenario and type.

    Always: probes, passages, effectivity (Definition 2) overall, unfiltered and by exposure, gain after the last
    exposure and at the end of the run, the mean curve. Where facts were injected also retention (Definition 3), its
    decay, and what is known against a control run (`net`) and against another record's target (`specificity`).
    """
    cell = {
        "n_probes": len(sample),
        "n_passages": len(set(sample.clusters)),
        "effectivity": estimate(st.mean_effectivity, sample, settings),
        "effectivity_unfiltered": estimate(st.unfiltered_effectivity, sample, settings),
        "effectivity_by_exposure": estimate(st.effectivity_by_exposure, sample, settings),
        "gain": estimate(mean_of("gain_P"), sample, settings),
        "gain_end": estimate(mean_of("end_P"), sample, settings),
        "curve": {"steps": sample.steps_T.tolist(), **estimate(st.mean_curve, sample, settings)},
    }
    if injected:
        known_P = np.isfinite(sample.gain_P)
        cell["n_unreached"] = int((~known_P).sum())
        cell["n_dropped"] = int((known_P & ~kept_probes(sample.gain_P, settings.min_gain)).sum())
        cell |= _retention(sample, settings)
        if np.isfinite(sample.net_gain_P).any():
            cell["net"] = _net(sample, settings)
        if np.isfinite(sample.swapped_gain_P).any():
            cell["specificity"] = {
                "gain": estimate(_true_minus_swapped("gain_P"), sample, settings),
                "gain_end": estimate(_true_minus_swapped("end_P"), sample, settings),
            }
    return cell


def _retention(sample: Sample, settings: Settings) -> dict:
    """Curves of both estimators, the value at the end and at fixed times, and both fits."""
    share = estimate(st.retained_share, sample, settings)
    ratios = estimate(st.mean_retainability, sample, settings)
    elapsed = sample.elapsed_G.tolist()
    end = [share[name][-1] if elapsed else math.nan for name in ("value", "low", "high")]
    every = decay.every_step(sample.elapsed_G, np.array(ratios["value"]))
    return {
        "retainability": {"elapsed": elapsed, "ratio_of_means": share, "mean_of_ratios": ratios},
        "retainability_end": {
            "elapsed": elapsed[-1] if elapsed else math.nan,
            **dict(zip(("value", "low", "high"), end, strict=True)),
        },
        "retainability_at": _retention_at(sample, share["value"]),
        "decay": _decay(sample, share["value"], settings),
        "decay_paper": asdict(decay.fit_decay(*every, sample.tokens_per_step)),
    }


def _retention_at(sample: Sample, share: list[float]) -> dict:
    """R at powers of two of steps and of tokens, so that runs of different batch sizes compare at equal times."""
    if not len(sample.elapsed_G) or sample.elapsed_G[-1] < 1:
        return {"steps": {}, "tokens": {}}
    end = sample.elapsed_G[-1]
    found = {}
    for unit, size in (("steps", 1), ("tokens", sample.tokens_per_step)):
        grid = 2 ** np.arange(math.ceil(math.log2(size)), math.floor(math.log2(end * size)) + 1)
        values = np.interp(np.log10(grid / size), np.log10(sample.elapsed_G[1:]), share[1:])
        found[unit] = {str(at): float(value) for at, value in zip(grid, values, strict=True)}
    return found


def _decay(sample: Sample, share: list[float], settings: Settings) -> dict:
    """The fit of the ratio of means at log-spaced t, with bootstrap intervals of a, b, R2 and tau."""
    fitted_G = st.fit_points(sample)
    fit = asdict(decay.fit_decay(sample.elapsed_G[fitted_G], np.array(share)[fitted_G], sample.tokens_per_step))
    draws = estimate(st.decay_draws, sample, settings)
    for i, name in enumerate(("a", "b", "r2")):
        fit[name] = {"value": fit[name], "low": draws["low"][i], "high": draws["high"][i]}
    fit["r2"] = st.within(fit["r2"], 0, 1)
    angle = st.within({side: draws[side][3] for side in ("low", "high")}, 0, math.pi)
    low, high = decay.tau_of_angle(angle["high"]), decay.tau_of_angle(angle["low"])  # tau falls as its angle rises
    for name, factor in (("tau_steps", 1), ("tau_tokens", sample.tokens_per_step)):
        fit[name] = {"value": fit[name], "low": low * factor, "high": high * factor}
    return fit


def _net(sample: Sample, settings: Settings) -> dict:
    """The same quantities of l minus the paired control run's l: its drift is gone."""
    retained = estimate(st.net_retained_share, sample, settings)
    fitted_G = st.fit_points(sample)
    fit = decay.fit_decay(sample.elapsed_G[fitted_G], np.array(retained["value"])[fitted_G], sample.tokens_per_step)
    last = {name: values[-1] if values else math.nan for name, values in retained.items()}
    return {
        "gain": estimate(mean_of("net_gain_P"), sample, settings),
        "gain_end": estimate(mean_of("net_end_P"), sample, settings),
        "retained": retained,
        "retainability_end": last,
        "decay_constant": {"value": fit.a},
        "r2": {"value": fit.r2},
    }


def _true_minus_swapped(name: str) -> st.Statistic:
    """Mean of a gain less the gain of another record's target in its place, nats, [B]."""

    def statistic(sample: Sample, weights_BP: np.ndarray, settings: Settings) -> np.ndarray:
        difference_P1 = (getattr(sample, name) - getattr(sample, f"swapped_{name}"))[:, None]
        return st.weighted_mean(difference_P1, np.isfinite(difference_P1), weights_BP)[:, 0]

    return statistic
