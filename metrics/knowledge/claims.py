"""What is compared with what: the quantities behind the paper's claims, the forecast, the sweep and the seeds.

This file knows which samples a claim is about. It does not decide whether the claim holds: a study does, over fresh
seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from metrics.intervals import t_interval
from metrics.knowledge import statistics as st
from metrics.knowledge.forecast import forecast, popularity
from metrics.knowledge.sample import CONTROL, INJECTED, Run, Sample, draw_sample
from metrics.knowledge.statistics import Settings, contrast, estimate, mean_of, point, within

STATEMENTS = {
    "jump": "effectivity, injected minus control records (nats)",
    "jump_unfiltered": "the same with no outlier left out (nats)",
    "decline": "change of the gain from its maximum to the end, duplication minus control (nats)",
    "log_linear": "R2 of R over log10 t, duplication; 0 where R rises",
    "gain_dup_minus_para": "gain after the last exposure, duplication minus paraphrase (nats)",
    "decay_dup_minus_para": "decay constant, duplication minus paraphrase",
    "gain_over_control_sd": "gain of duplication in standard deviations of control probes",
}


def compare(runs: Sequence[Run], samples: dict, settings: Settings) -> dict:
    """Quantities behind the claims of the paper, each with its interval; what has no data is left out.

    jump/{type}: effectivity of injected records minus the same windowed statistic of control records; the filter leaves
        out outliers of each by themselves, so jump_unfiltered/{type} has them all.
    decline/{type}: change of the gain from the last maximum to the end, duplication minus control records (each with
        its own maximum, since picking a maximum picks noise).
    log_linear/{type}: R2 of the ratio of means over log10 t, duplication; 0 where the line rises.
    gain_dup_minus_para/{type}: gain after the last exposure.
    decay_dup_minus_para/{type}, and /mem_gen with both types pooled: difference of decay constants.
    gain_over_control_sd/{type}: gain of duplication in standard deviations of control probes; below 3 R is noise.
    """
    duplication, paraphrase, control = (samples.get(name, {}) for name in ("duplication", "paraphrase", CONTROL))
    found = {}
    for kind, never in control.items():
        if injected := draw_sample(runs, INJECTED, [kind]):
            found[f"jump/{kind}"] = contrast(st.mean_effectivity, injected, never, settings)
            found[f"jump_unfiltered/{kind}"] = contrast(st.unfiltered_effectivity, injected, never, settings)
        if kind in duplication:
            found[f"decline/{kind}"] = contrast(st.mean_change, duplication[kind], never, settings)
            found[f"gain_over_control_sd/{kind}"] = _gain_over_spread(duplication[kind], never)
    for kind, sample in duplication.items():
        found[f"log_linear/{kind}"] = within(estimate(st.log_linearity, sample, settings), 0, 1)
    pairs = {kind: (duplication[kind], paraphrase[kind]) for kind in duplication if kind in paraphrase}
    for kind, pair in pairs.items():
        found[f"gain_dup_minus_para/{kind}"] = contrast(mean_of("gain_P"), *pair, settings)
    if {"mem", "gen"} <= set(pairs):
        one, other = (draw_sample(runs, [scenario], ["mem", "gen"]) for scenario in ("duplication", "paraphrase"))
        pairs["mem_gen"] = one, other
    for kind, pair in pairs.items():
        found[f"decay_dup_minus_para/{kind}"] = contrast(st.decay_constant, *pair, settings)
    return {
        name: {"statement": STATEMENTS[name.split("/")[0]], **found[name]}
        for name in sorted(found, key=lambda name: list(STATEMENTS).index(name.split("/")[0]))
        if math.isfinite(found[name]["value"])
    }


def _gain_over_spread(sample: Sample, control: Sample) -> dict:
    """Mean gain over the standard deviation of the control probes' gains; no interval."""
    gains = control.gain_P[np.isfinite(control.gain_P)]
    spread = gains.std(ddof=1) if len(gains) > 1 else 0.0
    known = np.isfinite(sample.gain_P)
    value = sample.gain_P[known].mean() / spread if spread > 0 and known.any() else math.nan
    return {"value": float(value), "low": math.nan, "high": math.nan}


def mem_gen_gaps(cells: dict) -> dict:
    """Memorization minus semantic gain over time, per scenario: it widens when text is repeated word by word."""
    gaps = {}
    for scenario, by_type in cells.items():
        if {"mem", "gen"} <= set(by_type):
            mem, gen = by_type["mem"]["curve"], by_type["gen"]["curve"]
            gap = np.array(mem["value"]) - np.array(gen["value"])
            gaps[scenario] = {"steps": mem["steps"], "gap": gap.tolist()}
    return gaps


def forecasts(samples: dict, cells: dict) -> dict:
    """Sum of decayed gains against what was observed, with the decay of facts that were shown once."""
    found: dict[str, dict] = {}
    for kind, once in cells.get("once", {}).items():
        a, b = once["decay"]["a"]["value"], once["decay"]["b"]["value"]
        if math.isfinite(a):
            for scenario in [s for s in INJECTED if kind in samples.get(s, {})]:
                found.setdefault(scenario, {})[kind] = forecast(samples[scenario][kind], a, b)
    return found


def popularity_sweeps(runs: Sequence[Run], types: Sequence[str], settings: Settings) -> dict:
    """The sweep over intervals, where facts were shown at different ones."""
    found = {}
    for kind in types:
        sample = draw_sample(runs, INJECTED, [kind])
        if sample and (sweep := popularity(sample, settings)):
            found[kind] = sweep
    return found


def across_seeds(runs: Sequence[Run], cells: dict, settings: Settings) -> dict:
    """Mean and t-interval over the n seeds that have the headline numbers, of how many; empty with a single seed."""
    blocks: dict[str, list[Run]] = {}
    for run in runs:
        blocks.setdefault(run.seed, []).append(run)
    if len(blocks) < 2:
        return {}
    found: dict[str, dict] = {}
    for scenario in [s for s in cells if s != CONTROL]:
        for kind in cells[scenario]:
            values = [_headline(draw_sample(block, [scenario], [kind]), settings) for block in blocks.values()]
            values = [value for value in values if value]
            names = ("effectivity", "gain", "decay_constant")
            intervals = {n: asdict(t_interval([v[n] for v in values if math.isfinite(v[n])])) for n in names}
            found.setdefault(scenario, {})[kind] = {n: {**one, "of": len(blocks)} for n, one in intervals.items()}
    return found


def _headline(sample: Sample | None, settings: Settings) -> dict[str, float]:
    if sample is None:
        return {}
    return {
        "effectivity": float(point(st.mean_effectivity, sample, settings)),
        "gain": float(point(mean_of("gain_P"), sample, settings)),
        "decay_constant": float(point(st.decay_constant, sample, settings)),
    }
