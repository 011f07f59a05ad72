"""Traces of runs that never were: gains that rise after each exposure and fade along log t, with known constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metrics.knowledge.trace import KnowledgeTrace

TYPES = {"mem": 1.0, "gen": 0.8, "hard_gen": 0.35}  # gain of an exposure, relative
DECAY = {"duplication": 0.25, "paraphrase": 0.15, "once": 0.2, "control": 0.0}
SCENARIOS = ("duplication", "paraphrase", "once", "control")


def measured(exposures, window, end, per_decade=12):
    """Every step of every window, log-spaced steps after the last."""
    dense = {t + k for t in exposures for k in range(window + 1)}
    tail = max(exposures) + window + np.rint(10 ** (np.arange(9 * per_decade) / per_decade)).astype(int)
    return np.array(sorted(step for step in {0, end} | dense | set(tail.tolist()) if step <= end))


def imagine(
    folder: Path,
    *,
    seed: int = 0,
    rotation: int = 0,
    enabled: bool = True,
    records: int = 16,
    probes: int = 3,
    n_injections: int = 5,
    interval: int = 12,
    intervals: tuple[int, ...] = (),
    window: int = 12,
    end: int = 140,
    batch_size: int = 8,
    noise: float = 0.03,
    gain: float = 0.3,
    drift: float = 0.1,
    scenarios: tuple[str, ...] = SCENARIOS,
    swapped: bool = False,
) -> KnowledgeTrace:
    """Write a trace; record i has scenario (i + rotation) mod 4, runs with one seed have the same passages."""
    rng, run = np.random.default_rng(seed), np.random.default_rng([seed, rotation, enabled])
    difficulty = rng.uniform(0.6, 1.4, records)
    roles = {f"fact{i}": scenarios[(i + rotation) % len(scenarios)] for i in range(records)}
    table = [
        {"record": record, "scenario": role, "type": kind, "index": index, "n_target_tokens": 2}
        for record, role in roles.items()
        for kind in TYPES
        for index in range(probes)
    ]
    schedule = {}
    for i, (record, role) in enumerate(roles.items()):
        every = intervals[i // len(scenarios) % len(intervals)] if intervals else interval
        count = {"once": 1, "control": 0}.get(role, n_injections)
        schedule[record] = [n * every for n in range(count)]
    steps = measured(sorted({t for times in schedule.values() for t in times} | {0}), window, end)
    base = rng.normal(-6, 1, len(table))
    scores = base + drift * np.log10(1 + steps)[:, None] + noise * run.normal(size=(len(steps), len(table)))
    for q, row in enumerate(table):
        a, size = DECAY[row["scenario"]], gain * TYPES[row["type"]] * difficulty[int(row["record"][4:])]
        for t in schedule[row["record"]] if enabled else ():
            scores[:, q] += size * share(steps - t, a)
    channels = ["target_mean", "target_sum", "first", "full", *["swapped_mean"] * swapped]
    header = {
        "batch_size": batch_size,
        "seq_len": 128,
        "tokens_per_step": batch_size * 128,
        "window": window,
        "injection_steps": schedule,
        "enabled": enabled,
        "channels": channels,
        "seeds": {"run": seed},
        "knowledge_sha256": "f00",
        "tokenizer_sha256": "ba7",
    }
    trace = KnowledgeTrace.create(folder, header, table)
    foreign = base + drift * np.log10(1 + steps)[:, None] + 0.2 * (scores - scores[0])
    for step, score, other in zip(steps, scores, foreign, strict=True):
        trace.append(int(step), np.stack([score, 2 * score, score, score, *[other] * swapped], axis=1))
    return trace


def share(age: np.ndarray, a: float) -> np.ndarray:
    """What is left of one gain: up within three steps, then 1 - a log10 of the time since."""
    since = np.maximum(age - 3, 1)
    return np.where(age <= 0, 0.0, np.where(age < 3, age / 3, np.maximum(0.0, 1 - a * np.log10(since))))
