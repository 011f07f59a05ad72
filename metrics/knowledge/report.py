"""The report of knowledge-acquisition runs: what was learned at each exposure, what was kept, which claims hold.

`knowledge_report` turns traces into one plain dictionary, `write_report` that into files, `final_scalars` into names
and numbers for a logger. The same traces give a byte-equal report.json. This file puts the parts together: statistics
are in metrics/knowledge/cells.py and metrics/knowledge/claims.py, tables and figures in the files of those names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from metrics.knowledge import claims
from metrics.knowledge.cells import describe
from metrics.knowledge.figures import curves_figure, retention_figure
from metrics.knowledge.paper import TYPES
from metrics.knowledge.sample import CONTROL, INJECTED, draw_sample, load_runs
from metrics.knowledge.statistics import Settings
from metrics.knowledge.tables import markdown
from metrics.knowledge.trace import KnowledgeTrace
from metrics.report_files import write_figure
from text.whole_files import write_text

DEFAULT = Settings()


def knowledge_report(
    traces: Sequence[KnowledgeTrace],
    controls: Sequence[KnowledgeTrace] = (),
    span_reduction: Literal["mean", "sum"] = "mean",
    settings: Settings = DEFAULT,
) -> dict:
    """Pool traces of one setting (seeds, crossed rotations) and compare what was injected with what was not.

    Args:
        traces: of runs with the same batch and window.
        controls: of paired runs in which nothing was injected; empty, or one for each seed of `traces`.
        span_reduction: a probe's score is the mean or the sum over its target tokens.
        settings: choices of the analysis.

    Returns: a dictionary of plain values (numbers, NaN, inf, lists):
        cells: {scenario: {type: statistics}}, see `cells.describe`.
        claims: {name: {statement, value, low, high}}, see `claims.compare`.
        setting, runs, mem_gen_gap, forecast, popularity, across_seeds: what their tables in report.md show.

    Raises:
        UserError: the traces cannot be pooled, or a control run is not paired with them.
    """
    runs = load_runs(traces, controls, span_reduction)
    header = traces[0].header
    types = sorted({row["type"] for run in runs for row in run.table}, key=_type_order)
    samples = {
        scenario: {t: sample for t in types if (sample := draw_sample(runs, [scenario], [t]))}
        for scenario in (*INJECTED, CONTROL)
    }
    samples = {scenario: by_type for scenario, by_type in samples.items() if by_type}
    injected = header["enabled"]
    cells = {
        scenario: {t: describe(sample, injected and scenario != CONTROL, settings) for t, sample in by_type.items()}
        for scenario, by_type in samples.items()
    }
    return {
        "setting": {
            **{name: header[name] for name in ("batch_size", "seq_len", "tokens_per_step", "window", "enabled")},
            "knowledge_sha256": header["knowledge_sha256"],
            "tokenizer_sha256": header["tokenizer_sha256"],
            "span_reduction": span_reduction,
            "exposures": sorted({t for times in header["injection_steps"].values() for t in times}),
            "analysis": asdict(settings),
        },
        "runs": [
            {"folder": run.name, "seed": run.seed, "measured": len(run.steps_T), "last_step": int(run.steps_T[-1])}
            for run in runs
        ],
        "controls": [str(control.folder) for control in controls],
        "cells": cells,
        "claims": claims.compare(runs, samples, settings) if injected else {},
        "mem_gen_gap": claims.mem_gen_gaps(cells),
        "forecast": claims.forecasts(samples, cells) if injected else {},
        "popularity": claims.popularity_sweeps(runs, types, settings) if injected else {},
        "across_seeds": claims.across_seeds(runs, cells, settings) if injected else {},
    }


def write_report(report: dict, folder: str | Path) -> Path:
    """Write report.md, report.json, curves.png and retention.png; returns the path of report.md."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (("curves.png", curves_figure(report)), ("retention.png", retention_figure(report))):
        write_figure(folder / name, figure)
    texts = {
        "report.json": json.dumps(_jsonable(report), indent=1, allow_nan=False) + "\n",
        "report.md": markdown(report),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.md"


def final_scalars(report: dict) -> dict[str, float]:
    """Names and numbers for a logger; what is not finite is left out.

    probe/{scenario}/{type}/: effectivity, effectivity_unfiltered, effectivity_first, gain, gain_end; for what was
    injected also retainability_end, decay_constant, r2, rmse (of the line over log t), rmse_exponential, tau_steps,
    tau_tokens, retainability_at_steps/{t} and retainability_at_tokens/{t} at powers of two, net_* against a paired
    control run.
    claims/{name}: see `claims.compare`.
    """
    scalars = {f"claims/{name}": claim["value"] for name, claim in report["claims"].items()}
    for scenario, by_type in report["cells"].items():
        for kind, cell in by_type.items():
            scalars |= {f"probe/{scenario}/{kind}/{name}": value for name, value in _cell_scalars(cell).items()}
    return {name: float(value) for name, value in scalars.items() if math.isfinite(value)}


def _cell_scalars(cell: dict) -> dict[str, float]:
    scalars = {name: cell[name]["value"] for name in ("effectivity", "effectivity_unfiltered", "gain", "gain_end")}
    scalars["effectivity_first"] = cell["effectivity_by_exposure"]["value"][0]
    if "decay" in cell:
        fit = cell["decay"]
        scalars |= {"decay_constant": fit["a"]["value"], "r2": fit["r2"]["value"]}
        scalars |= {name: fit[name] for name in ("rmse", "rmse_exponential")}
        scalars |= {name: fit[name]["value"] for name in ("tau_steps", "tau_tokens")}
        scalars["retainability_end"] = cell["retainability_end"]["value"]
        for unit, values in cell["retainability_at"].items():
            scalars |= {f"retainability_at_{unit}/{at}": value for at, value in values.items()}
    if "net" in cell:
        scalars |= {f"net_{name}": value["value"] for name, value in cell["net"].items() if name != "retained"}
    return scalars


def _type_order(kind: str) -> tuple[int, str]:
    return list(TYPES).index(kind) if kind in TYPES else len(TYPES), kind


def _jsonable(value):
    """Plain JSON: nine digits (the last bits of a sum may depend on the machine), null for NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
