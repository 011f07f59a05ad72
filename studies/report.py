"""The report of a study: verdicts, every number behind them, and how honest they can be.

Equal runs give equal bytes. This file knows tables. It does not know statistics (verdict.py) or how figures are drawn
(figure.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metrics.tables import on_its_side
from studies.claims import Claim
from studies.figure import draw
from studies.provenance import criterion_commit, criterion_hash
from studies.readings import FACTS, Readings, facts
from studies.run import read_record
from studies.stages import Work
from studies.verdict import Estimate, Outcome, judge
from text.whole_files import write_text

# What is kept in the repository of a result: all that a verdict can be worked out from anew, and no times or places.
KEPT = (
    "study",
    "verdict",
    "claims",
    "seeds",
    "development_settings_tried",
    "criterion_commit",
    "code_version",
    "packages",
)
COLOURS = {"SHOWN": "green", "NOT SHOWN": "red", "INCONCLUSIVE": "yellow"}
NOT_AVAILABLE = "not available"


def report_folder(work: Work) -> Path:
    """runs/<study>, or quick/ and calibration/ in it, so that these never replace a result."""
    return work.out if work.mode == "reported" else work.out / work.mode


def write_report(work: Work) -> dict[str, Any]:
    """Write report.md, report.json and report.png of a study whose stages have all finished, and return report.json.

    A result on all committed seeds is also kept as docs/results/<study>.json, which the README is checked against.
    """
    folder, report = report_folder(work), make_report(work)
    _write_json(folder / "report.json", report)
    _write(folder / "report.md", "\n".join(_markdown(report)) + "\n")
    draw(report, folder / "report.png")
    if work.mode == "reported" and set(work.study.seeds) <= set(work.seeds):
        _write_json(results_file(work), {name: report[name] for name in KEPT})
    return report


def results_file(work: Work) -> Path:
    """docs/results/<study>.json."""
    return work.root / "docs" / "results" / f"{work.study.name}.json"


def make_report(work: Work) -> dict[str, Any]:
    """Everything the report says, as plain values; what is not a number is None."""
    study = work.study
    outcomes = [_judge(work, claim) for claim in study.claims]
    runs = [
        {
            "stage": stage.name,
            "arms": list(stage.arms),
            "seed": stage.seed,
            **facts(work, stage),
            "seconds": read_record(work, stage).get("seconds"),
            "folder": str(stage.run),
            "command": stage.command,
        }
        for stage in work.stages.values()
    ]
    return {
        "study": study.name,
        "mode": work.mode,
        "verdict": outcomes[0].verdict,
        "claims": [_claim(outcome, work.mode) for outcome in outcomes],
        "seeds": work.seeds,
        "calibration_seed": study.calibration_seed,
        "development_settings_tried": study.development_settings_tried,
        "criterion_commit": criterion_commit(study),
        "warnings": list(_warnings(work)),
        "code_version": work.code,
        "packages": work.packages,
        "runs": runs,
    }


def _judge(work: Work, claim: Claim) -> Outcome:
    obstacles = []
    if work.mode != "reported":
        obstacles.append(f"a {work.mode} run gives no verdict")
    elif missing := [seed for seed in work.study.seeds if seed not in work.seeds]:
        obstacles.append(f"committed seeds that were not run: {', '.join(map(str, missing))}")
    values = {}
    for arm in dict.fromkeys(arm for arm, _ in work.lines):
        readings = Readings(work)
        values[arm] = readings.values(claim.statistic, arm)
        if arm in claim.statistic.arms:  # other arms are shown where they have the number
            obstacles += readings.problems
    readings = Readings(work)
    guards = [readings.mean(guard) for guard in claim.criterion.requires]
    return judge(claim, values, guards, [*obstacles, *readings.problems])


def _warnings(work: Work) -> Iterator[str]:
    """What a reader must know before believing a verdict: when was the criterion fixed?"""
    if work.mode != "reported":
        return
    if criterion_commit(work.study) is None:
        yield "The criterion is UNCOMMITTED: no commit holds study.yaml as it stands."
    records = [(stage, read_record(work, stage)) for stage in work.stages.values() if stage.seed is not None]
    now = criterion_hash(work.study)
    for what, of_these in (
        ("The criterion or the seeds were CHANGED after these ran", lambda r: r and r["criterion"] != now),
        ("The criterion was not committed when these ran", lambda r: r and r["criterion_commit"] is None),
        ("Run by hand, so nothing tells whether before the commit of the criterion", lambda r: not r),
    ):
        if found := [stage for stage, record in records if of_these(record)]:
            stages, seeds = dict.fromkeys(s.name for s in found), dict.fromkeys(str(s.seed) for s in found)
            yield f"{what}: {', '.join(stages)} (seeds {', '.join(seeds)})."


def _claim(outcome: Outcome, mode: str) -> dict[str, Any]:
    claim, criterion = outcome.claim, outcome.claim.criterion
    words = outcome.verdict + (" (reversed)" if outcome.reversed else "")
    return {
        "claim": " ".join(claim.claim.split()),
        "paper": claim.paper,
        "verdict": outcome.verdict,
        "words": words if mode == "reported" else f"no verdict ({mode})",
        "notes": list(outcome.notes),
        **claim.statistic.model_dump(),
        "criterion": str(criterion),
        "direction": criterion.direction,
        "than": criterion.than if criterion.direction else None,
        "point": list(criterion.point) if criterion.point else None,
        "level": criterion.level,
        "estimate": _estimate(outcome.contrast),
        "arms": {name: _estimate(arm) for name, arm in outcome.arms.items()},
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval
    return {
        "mean": _finite(interval.mean),
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "units": interval.n,
        "per_seed": {str(seed): _finite(value) for seed, value in estimate.per_seed.items()},
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _markdown(report: dict[str, Any]) -> Iterator[str]:
    headline = report["claims"][0]
    yield f"# {report['study']}: {headline['words']}"
    yield f"\n> {headline['claim']}\n"
    yield from (f"**{warning}**\n" for warning in report["warnings"])
    yield "![Every arm and contrast with its interval](report.png)\n"
    yield "| claim | measured | interval | criterion | verdict |"
    yield "|---|---|---|---|---|"
    for claim in report["claims"]:
        found = claim["estimate"]
        yield _row(
            claim["claim"],
            f"{', '.join(claim['metric'])} of {claim['contrast']} = {number(found['mean'])}",
            f"{bounds(found, marks_of(claim))} ({100 * claim['level']:g} %)",
            claim["criterion"],
            claim["words"],
        )
    for place, claim in enumerate(report["claims"], start=1):
        yield from _claim_section(place, claim, report["seeds"])
    yield from _method_section(report)


def _claim_section(place: int, claim: dict[str, Any], seeds: list[int]) -> Iterator[str]:
    yield f"\n## {place}. {claim['claim']}\n"
    yield from (f"- {note}" for note in claim["notes"])
    yield f"\nThe paper: {'; '.join(_paper(claim['paper']))}.\n"
    paired = " and ".join(claim["paired_by"])
    yield f"Metric: {' and '.join(f'`{metric}`' for metric in claim['metric'])}; {claim['test']}, paired by {paired}.\n"
    yield _row("", "mean", f"{100 * claim['level']:g} % interval", *(f"seed {seed}" for seed in seeds))
    yield "|" + "---|" * (3 + len(seeds))
    others = {name: found for name, found in claim["arms"].items() if name != claim["contrast"]}
    for name, found in [*others.items(), (f"**{claim['contrast']}**", claim["estimate"])]:
        values = [number(found["per_seed"][str(seed)]) for seed in seeds]
        marks = marks_of(claim) if found is claim["estimate"] else []
        yield _row(name, number(found["mean"]), bounds(found, marks), *values)


def _method_section(report: dict[str, Any]) -> Iterator[str]:
    yield "\n## How this came about\n"
    yield f"- Criterion committed in: {report['criterion_commit'] or '**UNCOMMITTED**'}"
    yield f"- Seeds: {', '.join(map(str, report['seeds']))} ({report['mode']})."
    yield f"- Kept for calibration, never reported: {', '.join(map(str, report['calibration_seed']))}."
    yield f"- Settings tried in development: {report['development_settings_tried']}"
    yield f"- Code version: {report['code_version'][:12]}"
    yield f"- Packages: {', '.join(f'{name} {version}' for name, version in report['packages'].items())}"
    seconds = [run["seconds"] for run in report["runs"]]
    yield f"- Wall-clock of all runs together: {clock(sum(s or 0 for s in seconds))}" + (
        f" ({seconds.count(None)} runs without a record)" if None in seconds else ""
    )
    yield "\n" + _row("stage", "arms", "seed", *FACTS, "wall-clock")
    yield "|---|---|---|" + "---|" * len(FACTS) + "---|"
    for run in report["runs"]:
        counts = [f"{run[name]:,.0f}" if run.get(name) is not None else "" for name in FACTS]
        seed = "shared" if run["seed"] is None else str(run["seed"])
        yield _row(run["stage"], ", ".join(run["arms"]), seed, *counts, clock(run["seconds"]))
    yield "\nThe commands, in order (`reproduce.py` runs them, and only those that have not finished):\n"
    yield "```sh"
    yield from (run["command"] for run in report["runs"])
    yield "```"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _paper(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _paper(part, f"{name}, {key}" if name else str(key))
    else:
        shown = NOT_AVAILABLE if value is None or value == {} else str(value)
        yield f"{name}: {shown}" if name else shown


def marks_of(claim: dict[str, Any]) -> list[float]:
    """The numbers that a claim's interval is compared with."""
    return [mark for mark in (claim["than"], claim["point"] and claim["point"][1]) if mark is not None]


def bounds(found: dict[str, Any], marks: Sequence[float] = ()) -> str:
    """``[0.12, 0.34]``, or why there is no interval.

    Args:
        found: an estimate.
        marks: what the bounds are compared with: they are not rounded across.
    """
    if found["low"] is None:
        return "none: one seed" if found["units"] == 1 else "none: a value is missing"
    return f"[{number(found['low'], marks)}, {number(found['high'], marks)}]"


def number(value: float | None, marks: Sequence[float] = ()) -> str:
    """Four significant digits, more where rounding would cross a mark."""
    return "n/a" if value is None else on_its_side(lambda v, digits: f"{v:.{digits}g}", value, 4, marks)


def clock(seconds: float | None) -> str:
    """``m:ss``, or ``h:mm:ss``."""
    if seconds is None:
        return "n/a"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def conclude(work: Work, console: Console) -> None:
    """Write the report, print the verdicts, and say where the rest is."""
    report, folder = write_report(work), report_folder(work)
    table = Table("claim", "measured", "interval", "verdict", title=report["study"], title_justify="left")
    for claim in report["claims"]:
        found = claim["estimate"]
        table.add_row(
            Text(claim["claim"]),
            f"{claim['contrast']} = {number(found['mean'])}",
            Text(bounds(found, marks_of(claim))),
            Text(claim["words"], COLOURS[claim["verdict"]]),
        )
    console.print(table)
    for note in dict.fromkeys(note for claim in report["claims"] for note in claim["notes"]):
        console.print(f"- {note}", markup=False, highlight=False)
    for warning in report["warnings"]:
        console.print(f"[bold red]{warning}[/]", highlight=False)
    console.print(f"Report: {folder / 'report.md'}\nFigure: {folder / 'report.png'}", highlight=False, soft_wrap=True)
    if results_file(work).is_file() and work.mode == "reported":
        console.print(f"Kept in the repository: {results_file(work)}", highlight=False, soft_wrap=True)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
