"""The report of a study: verdicts, every number behind them, and how honest they can be.

Equal runs give equal bytes. This file knows what a report holds. It does not know statistics (verdict.py), how its page
is laid out (page.py) or how figures are drawn (figure.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.claims import Claim, Kind
from studies.figure import draw
from studies.page import bounds, markdown, marks_of, number, p_words
from studies.provenance import criterion_commit, criterion_hash, read_record
from studies.readings import Readings, facts
from studies.stages import Work
from studies.verdict import Estimate, Outcome, judge, judge_together
from text.whole_files import write_text

# What is kept in the repository of a result: all that a verdict can be worked out from anew, and no times or places.
KEPT = (
    "study",
    "verdict",
    "claims",
    "seeds",
    "development_settings_tried",
    "criterion_commit",
    "warnings",
    "code_version",
    "packages",
)
# Said of checks, which show nothing of the paper when they hold.
OF_CHECKS = {"SHOWN": "holds", "NOT SHOWN": "fails", "INCONCLUSIVE": "unclear"}
COLOURS = {"SHOWN": "green", "NOT SHOWN": "red", "INCONCLUSIVE": "yellow"}


def report_folder(work: Work) -> Path:
    """runs/<study>, or a folder in it that is called after the mode, so that no other run replaces a result."""
    return work.out if work.mode == "reported" else work.out / work.mode


def write_report(work: Work) -> dict[str, Any]:
    """Write report.md, report.json and report.png of a study whose stages have all finished, and return report.json.

    A result on the committed seeds is also kept as docs/results/<study>.json, which the README is checked against, and
    drawn as docs/pictures/<study>_study.png, which its page shows: both without the arms of ablations.
    """
    folder, report = report_folder(work), make_report(work)
    _write_json(folder / "report.json", report)
    _write(folder / "report.md", "\n".join(markdown(report)) + "\n")
    draw(report, folder / "report.png")
    if work.mode == "reported":
        plain = work.without_ablations()
        kept = report if plain.lines == work.lines else make_report(plain)
        _write_json(results_file(work), {name: kept[name] for name in KEPT})
        picture = work.root / "docs" / "pictures" / f"{work.study.name}_study.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(kept, picture)
    return report


def results_file(work: Work) -> Path:
    """docs/results/<study>.json."""
    return work.root / "docs" / "results" / f"{work.study.name}.json"


def make_report(work: Work) -> dict[str, Any]:
    """Everything the report says, as plain values; what is not a number is None."""
    study = work.study
    outcomes = judge_together([(kind, _judge(work, claim)) for kind, claim in study.claims])
    runs = [
        {
            "stage": stage.name,
            "arms": list(stage.arms),
            "seed": stage.seed,
            **facts(work, stage),
            "seconds": read_record(stage, work.root).get("seconds"),
            "folder": str(stage.run),
            "command": stage.command,
        }
        for stage in work.stages.values()
    ]
    return {
        "study": study.name,
        "mode": work.mode,
        "verdict": outcomes[0][1].verdict,
        "claims": [_claim(kind, outcome, work.mode) for kind, outcome in outcomes],
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
    obstacles = list(_without_verdict(work))
    values = {}
    for arm in dict.fromkeys(arm for arm, _ in work.lines):
        readings = Readings(work)
        values[arm] = readings.values(claim.statistic, arm)
        if arm in claim.statistic.arms:  # other arms are shown where they have the number
            obstacles += readings.problems
    readings = Readings(work)
    guards = [readings.mean(guard) for guard in claim.criterion.requires]
    return judge(claim, values, guards, [*obstacles, *readings.problems])


def _without_verdict(work: Work) -> Iterator[str]:
    """Why the runs give no verdict, whatever their numbers: it is of the committed seeds, no fewer and no more."""
    if work.mode != "reported":
        yield f"a {work.mode} run gives no verdict"
    if work.mode == "trial":
        run, committed = set(work.seeds), set(work.study.seeds)
        for what, seeds in (("committed and not run", committed - run), ("run and not committed", run - committed)):
            if seeds:
                yield f"seeds that were {what}: {', '.join(map(str, sorted(seeds)))}"


def _warnings(work: Work) -> Iterator[str]:
    """What a reader must know before believing a verdict: when was the criterion fixed?"""
    if work.mode != "reported":
        return
    if criterion_commit(work.study) is None:
        yield "The criterion is UNCOMMITTED: no commit holds study.yaml as it stands."
    records = [(stage, read_record(stage, work.root)) for stage in work.stages.values() if stage.seed is not None]
    now = criterion_hash(work.study)
    for what, of_these in (
        ("The criterion or the seeds were CHANGED after these ran", lambda r: r and r["criterion"] != now),
        ("The criterion was not committed when these ran", lambda r: r and r["criterion_commit"] is None),
        ("Run by hand, so nothing tells whether before the commit of the criterion", lambda r: not r),
    ):
        if found := [stage for stage, record in records if of_these(record)]:
            stages, seeds = dict.fromkeys(s.name for s in found), dict.fromkeys(str(s.seed) for s in found)
            yield f"{what}: {', '.join(stages)} (seeds {', '.join(seeds)})."


def _claim(kind: Kind, outcome: Outcome, mode: str) -> dict[str, Any]:
    claim, criterion = outcome.claim, outcome.claim.criterion
    words = (OF_CHECKS[outcome.verdict] if kind == "check" else outcome.verdict) + " (reversed)" * outcome.reversed
    return {
        "claim": " ".join(claim.claim.split()),
        "kind": kind,
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
        "p": _finite(outcome.p),
        "corrected_p": None if outcome.corrected_p is None else _finite(outcome.corrected_p),
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


def conclude(work: Work, console: Console) -> None:
    """Write the report, print the verdicts, and say where the rest is."""
    report, folder = write_report(work), report_folder(work)
    table = Table("claim", "measured", "verdict", title=report["study"], title_justify="left", show_lines=True)
    for claim in report["claims"]:
        found = claim["estimate"]
        measured = f"{number(found['mean'])} {bounds(found, marks_of(claim))}"
        table.add_row(
            Text(f"{claim['kind']}: {claim['claim']}"),
            Text(f"{claim['contrast']}\n{measured}\np {p_words(claim)}"),
            Text(claim["words"], COLOURS[claim["verdict"]]),
        )
    console.print(table)
    for note in dict.fromkeys(note for claim in report["claims"] for note in claim["notes"]):
        console.print(f"- {note}", markup=False, highlight=False)
    for warning in report["warnings"]:
        console.print(f"[bold red]{warning}[/]", highlight=False)
    console.print(f"Report: {folder / 'report.md'}\nFigure: {folder / 'report.png'}", highlight=False, soft_wrap=True)
    if work.mode == "reported":
        console.print(f"Kept in the repository: {results_file(work)}", highlight=False, soft_wrap=True)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
