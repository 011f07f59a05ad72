"""From traces to samples: the probes of one scenario and type, pooled over runs, ready for statistics.

Pooling is what a crossed design and several seeds need: every row keeps the passage it belongs to, so that resampling
can move whole passages (metrics/knowledge/statistics.py). This file knows which probe of which run goes where. It does
not average anything.

Shape suffixes: T measured steps, Q probes of a run, P probes of a sample, N exposures, G points of elapsed time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from metrics.knowledge import definitions
from metrics.knowledge.trace import KnowledgeTrace
from text.errors import UserError

INJECTED = ("duplication", "paraphrase", "once")
CONTROL = "control"


@dataclass(frozen=True)
class Run:
    """One trace, read into memory.

    Attributes:
        name: its folder.
        seed: runs with equal seeds form one block of a crossed design.
        table: rows of the trace's probes.
        steps_T: measured steps from 0 on.
        scores_TQ: log-probability of the target, nats.
        swapped_TQ: the same for another record's target, when it was measured.
        control_TQ: the same probes in the paired run without injections, at the same steps.
        injections_QN: exposure steps, NaN-padded. Control records get those of the longest schedule: the windows in
            which they are compared with injected records.
        window: w of Definition 1.
        tokens_per_step: global batch size times sequence length.
    """

    name: str
    seed: str
    table: list[dict]
    steps_T: np.ndarray
    scores_TQ: np.ndarray
    swapped_TQ: np.ndarray | None
    control_TQ: np.ndarray | None
    injections_QN: np.ndarray
    window: int
    tokens_per_step: int

    def columns(self, scenarios: Sequence[str], types: Sequence[str]) -> np.ndarray:
        """Numbers of the probes of these scenarios and types."""
        return np.array([i for i, r in enumerate(self.table) if r["scenario"] in scenarios and r["type"] in types], int)


@dataclass(frozen=True)
class Sample:
    """Probes of some scenarios and types over all runs; NaN where something was not reached or not measured.

    Attributes:
        clusters: [P] the passage of each row: seed and record. In a crossed design a record keeps its label over the
            rotations of one seed.
        interval_P: steps from the first exposure to the second.
        level_PN: l(t_i) - l(t_pre), what was still known just before each exposure, nats.
        effectivity_PN: gain of each exposure, nats.
        age_PN: T - t_LAM of each exposure, steps.
        gain_P: l(t_LAM) - l(t_pre) after the last exposure, nats.
        end_P: l(T) - l(t_pre), nats.
        elapsed_G: steps since t_LAM, from 0 to the last at which every row was measured; empty if there is none.
        retained_PG: l(t_LAM + t) - l(t_pre), nats.
        net_gain_P, net_end_P, net_retained_PG: the same with the paired control run's l taken off; its drift is gone.
        swapped_gain_P, swapped_end_P: as gain_P and end_P, for the target of another record.
        steps_T: steps of the curves.
        curve_PT: l(t) - l(0), nats.
        window, tokens_per_step: of the runs.
    """

    clusters: list[str]
    interval_P: np.ndarray
    level_PN: np.ndarray
    effectivity_PN: np.ndarray
    age_PN: np.ndarray
    gain_P: np.ndarray
    end_P: np.ndarray
    elapsed_G: np.ndarray
    retained_PG: np.ndarray
    net_gain_P: np.ndarray
    net_end_P: np.ndarray
    net_retained_PG: np.ndarray
    swapped_gain_P: np.ndarray
    swapped_end_P: np.ndarray
    steps_T: np.ndarray
    curve_PT: np.ndarray
    window: int
    tokens_per_step: int

    def __len__(self) -> int:
        return len(self.clusters)

    def rows(self, keep_P: np.ndarray) -> Sample:
        """The sample of some of the rows."""
        per_row = [field.name for field in fields(self) if "_P" in field.name]
        kept = {name: getattr(self, name)[keep_P] for name in per_row}
        return replace(self, clusters=[self.clusters[i] for i in np.flatnonzero(keep_P)], **kept)


def load_runs(
    traces: Sequence[KnowledgeTrace], controls: Sequence[KnowledgeTrace] = (), span_reduction: str = "mean"
) -> list[Run]:
    """Read traces that may be pooled, each with its paired control run.

    Raises:
        UserError: the traces differ in batch or window, are empty, or no control run fits one of them.
    """
    if not traces:
        raise UserError("a knowledge report needs at least one trace")
    for trace in [*traces, *controls]:
        if not (trace.steps >= 0).any():
            raise UserError(f"{trace.folder}: nothing was measured: the run ended before the schedule began")
    for trace in traces:
        for field in ("batch_size", "seq_len", "window", "enabled"):
            if trace.header[field] != traces[0].header[field]:
                raise UserError(
                    f"these runs cannot be pooled: '{field}' is {traces[0].header[field]!r} in {traces[0].folder} and "
                    f"{trace.header[field]!r} in {trace.folder}. Make a report for each setting"
                    + ("; runs without injections go to 'controls'" if field == "enabled" else "")
                )
    return [_load(trace, _paired(trace, controls) if controls else None, span_reduction) for trace in traces]


def draw_sample(runs: Sequence[Run], scenarios: Sequence[str], types: Sequence[str]) -> Sample | None:
    """Pool the probes of these scenarios and types; None when there are none."""
    runs = [run for run in runs if len(run.columns(scenarios, types))]
    if not runs:
        return None
    elapsed_G = _elapsed([(run, run.injections_QN[run.columns(scenarios, types)]) for run in runs])
    last = min(run.steps_T[-1] for run in runs)
    steps_T = np.unique(np.concatenate([run.steps_T[run.steps_T <= last] for run in runs]))
    parts = [_part(run, run.columns(scenarios, types), elapsed_G, steps_T) for run in runs]
    pooled = {name: _stack([part[name] for part in parts]) for name in parts[0] if name != "clusters"}
    return Sample(
        clusters=[cluster for part in parts for cluster in part["clusters"]],
        elapsed_G=elapsed_G,
        steps_T=steps_T,
        window=runs[0].window,
        tokens_per_step=runs[0].tokens_per_step,
        **pooled,
    )


def _part(run: Run, columns: np.ndarray, elapsed_G: np.ndarray, steps_T: np.ndarray) -> dict:
    """One run's rows of a sample."""
    scores_TQ, injections_QN = run.scores_TQ[:, columns], run.injections_QN[columns]
    injections_QN = injections_QN[:, : max(1, np.isfinite(injections_QN).any(axis=0).sum())]  # others may have more
    lam_QN = definitions.local_acquisition_maxima(scores_TQ, run.steps_T, injections_QN, run.window)
    got = definitions.acquired(scores_TQ, run.steps_T, injections_QN, run.window)
    first_Q1, peak_Q1 = injections_QN[:, :1], got.peak[:, None]
    unknown_Q, unknown_QG = np.full(len(columns), np.nan), np.full((len(columns), len(elapsed_G)), np.nan)
    part = {
        "clusters": [f"{run.seed} {run.table[column]['record']}" for column in columns],
        "interval_P": injections_QN[:, 1] - injections_QN[:, 0] if injections_QN.shape[1] > 1 else unknown_Q,
        "level_PN": definitions.values_at(scores_TQ, run.steps_T, injections_QN) - got.before[:, None],
        "age_PN": run.steps_T[-1] - lam_QN,
        "effectivity_PN": definitions.effectivity(scores_TQ, run.steps_T, injections_QN, run.window),
        "gain_P": got.gain,
        "end_P": np.where(np.isfinite(got.gain), scores_TQ[-1] - got.before, np.nan),
        "retained_PG": definitions.retained_gain(scores_TQ, run.steps_T, got.peak, got.before, elapsed_G),
        "net_gain_P": unknown_Q,
        "net_end_P": unknown_Q,
        "net_retained_PG": unknown_QG,
        "swapped_gain_P": unknown_Q,
        "swapped_end_P": unknown_Q,
        "curve_PT": _at_steps(scores_TQ - scores_TQ[0], run.steps_T, steps_T).T,
    }
    if run.control_TQ is not None:
        net_TQ = scores_TQ - run.control_TQ[:, columns]
        part["net_gain_P"] = definitions.values_at(net_TQ, run.steps_T, peak_Q1)[:, 0]
        part["net_end_P"] = np.where(np.isfinite(got.gain), net_TQ[-1], np.nan)
        part["net_retained_PG"] = definitions.retained_gain(net_TQ, run.steps_T, got.peak, 0 * got.before, elapsed_G)
    if run.swapped_TQ is not None:
        swapped_TQ = run.swapped_TQ[:, columns]
        before_Q = definitions.values_at(swapped_TQ, run.steps_T, first_Q1)[:, 0]
        part["swapped_gain_P"] = definitions.values_at(swapped_TQ, run.steps_T, peak_Q1)[:, 0] - before_Q
        part["swapped_end_P"] = np.where(np.isfinite(got.gain), swapped_TQ[-1] - before_Q, np.nan)
    return part


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Rows below rows; runs with fewer exposures are padded with NaN."""
    if arrays[0].ndim == 1:
        return np.concatenate(arrays)
    width = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [np.pad(array, [(0, 0), (0, width - array.shape[1])], constant_values=np.nan) for array in arrays]
    )


def _elapsed(groups: list[tuple[Run, np.ndarray]]) -> np.ndarray:
    """The grid on which retention is evaluated: the schedule's own resolution and log-spaced points for the fit."""
    lasts = [np.fmax.reduce(injections_QN, axis=1, initial=np.nan) for _, injections_QN in groups]
    end = min(
        definitions.horizon(run.steps_T, last_Q, run.window) for (run, _), last_Q in zip(groups, lasts, strict=True)
    )
    if end < 0:
        return np.zeros(0)
    measured = [run.steps_T - last_Q.max() for (run, _), last_Q in zip(groups, lasts, strict=True)]
    points = np.unique(np.concatenate([[0], *measured, definitions.log_spaced(end)]))
    return points[(points >= 0) & (points <= end)].astype(np.float64)


def _load(trace: KnowledgeTrace, control: KnowledgeTrace | None, span_reduction: str) -> Run:
    """Read one trace. Steps before t = 0, while an optimizer settles, are not part of the experiment."""
    channel = f"target_{span_reduction}"
    since = trace.steps >= 0
    steps_T = trace.steps[since]
    schedules = trace.header["injection_steps"]
    longest: list[int] = min(schedules.values(), key=lambda times: (-len(times), times), default=[])
    swapped = span_reduction == "mean" and "swapped_mean" in trace.header["channels"]
    return Run(
        name=str(trace.folder),
        seed=json.dumps(trace.header["seeds"], sort_keys=True),
        table=trace.table,
        steps_T=steps_T,
        scores_TQ=trace.channel(channel)[since],
        swapped_TQ=trace.channel("swapped_mean")[since] if swapped else None,
        control_TQ=None if control is None else _control_scores(trace, control, channel, steps_T),
        injections_QN=definitions.schedule_array([schedules.get(row["record"]) or longest for row in trace.table]),
        window=trace.header["window"],
        tokens_per_step=trace.header["tokens_per_step"],
    )


PAIRED = ("seeds", "batch_size", "seq_len", "knowledge_sha256", "tokenizer_sha256")


def _paired(trace: KnowledgeTrace, controls: Sequence[KnowledgeTrace]) -> KnowledgeTrace:
    """The control run with the same seeds, batch and data. Its rotation does not matter: nothing was injected."""
    for control in controls:
        if control.header["enabled"]:
            raise UserError(
                f"{control.folder}: facts were injected in this run, so it is no control run. "
                "A control run is trained with 'enabled: false' of KnowledgeInjection"
            )
    for control in controls:
        if all(control.header[field] == trace.header[field] for field in PAIRED):
            return control
    differing = [[f for f in PAIRED if control.header[f] != trace.header[f]] for control in controls]
    nearest, fields = min(zip(controls, differing, strict=True), key=lambda pair: len(pair[1]))
    raise UserError(
        f"{trace.folder}: no control run is paired with this one. In the nearest, {nearest.folder}, "
        + ", ".join(f"'{f}' is {nearest.header[f]!r} instead of {trace.header[f]!r}" for f in fields)
    )


def _control_scores(trace: KnowledgeTrace, control: KnowledgeTrace, channel: str, steps_T: np.ndarray) -> np.ndarray:
    """The control run's score of each probe of `trace`, [T, Q], at `steps_T`."""
    numbers = {(row["record"], row["type"], row["index"]): i for i, row in enumerate(control.table)}
    try:
        columns = [numbers[row["record"], row["type"], row["index"]] for row in trace.table]
    except KeyError as missing:
        record, kind, index = missing.args[0]
        raise UserError(f"{control.folder}: the control run has no probe {kind} {index} of record {record}") from None
    return _at_steps(control.channel(channel)[:, columns], control.steps, steps_T)


def _at_steps(scores_TQ: np.ndarray, from_T: np.ndarray, to_T: np.ndarray) -> np.ndarray:
    """Curves at other steps, linear in between; NaN beyond the last."""
    right_T = np.searchsorted(from_T, to_T).clip(1, max(len(from_T) - 1, 1)).clip(max=len(from_T) - 1)
    left_T = np.maximum(right_T - 1, 0)
    width_T = np.maximum(from_T[right_T] - from_T[left_T], 1)
    share_T1 = ((to_T - from_T[left_T]) / width_T)[:, None]
    values_TQ = scores_TQ[left_T] + share_T1 * (scores_TQ[right_T] - scores_TQ[left_T])
    return np.where((to_T > from_T[-1])[:, None], np.nan, values_TQ)
