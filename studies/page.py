"""The report of a study as a page: verdicts, then every number behind them, then how it came about.

This file turns a finished report (report.make_report) into markdown. It computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from metrics.tables import on_its_side
from studies.claims import Kind
from studies.readings import FACTS

NOT_AVAILABLE = "not available"
KINDS: dict[Kind, str] = {
    "confirmatory": "What the study is there to confirm.",
    "exploratory": "Exploratory, {n} on the same runs: a verdict must outlast Holm's correction for their number.",
    "check": "Checks: what must hold for the set-up to be sound, or hardly could fail. They are not counted.",
}


def markdown(report: dict[str, Any]) -> Iterator[str]:
    """The lines of report.md."""
    headline = report["claims"][0]
    yield f"# {report['study']}: {headline['words']}"
    yield f"\n> {headline['claim']}\n"
    yield from (f"**{warning}**\n" for warning in report["warnings"])
    yield "![Every arm and contrast with its interval](report.png)\n"
    for kind in KINDS:
        if claims := [claim for claim in report["claims"] if claim["kind"] == kind]:
            yield from _claims_table(KINDS[kind].format(n=len(claims)), claims)
    for place, claim in enumerate(report["claims"], start=1):
        yield from _claim_section(place, claim, report["seeds"])
    yield from _method_section(report)


def _claims_table(head: str, claims: list[dict[str, Any]]) -> Iterator[str]:
    yield f"\n{head}\n"
    yield "| claim | measured | interval | criterion | p | verdict |"
    yield "|---|---|---|---|---|---|"
    for claim in claims:
        found = claim["estimate"]
        yield _row(
            claim["claim"],
            f"{', '.join(claim['metric'])} of {claim['contrast']} = {number(found['mean'])}",
            f"{bounds(found, marks_of(claim))} ({100 * claim['level']:g} %)",
            claim["criterion"],
            p_words(claim),
            claim["words"],
        )


def _claim_section(place: int, claim: dict[str, Any], seeds: list[int]) -> Iterator[str]:
    yield f"\n## {place}. {claim['claim']}\n"
    yield from (f"- {note}" for note in claim["notes"])
    yield f"\nThe paper: {'; '.join(_paper(claim['paper']))}.\n"
    paired = " and ".join(claim["paired_by"])
    yield f"Metric: {' and '.join(f'`{metric}`' for metric in claim['metric'])}; {claim['test']}, paired by {paired}.\n"
    yield _row("", "mean", f"{100 * claim['level']:g} % interval", *(f"seed {seed}" for seed in seeds))
    yield "|" + "---|" * (3 + len(seeds))
    others = {name: found for name, found in claim["arms"].items() if name != claim["contrast"] and _measured(found)}
    for name, found in [*others.items(), (f"**{claim['contrast']}**", claim["estimate"])]:
        values = [number(found["per_seed"][str(seed)]) for seed in seeds]
        marks = marks_of(claim) if found is claim["estimate"] else []
        yield _row(name, number(found["mean"]), bounds(found, marks), *values)


def _measured(found: dict[str, Any]) -> bool:
    """Whether an arm has the number for any seed; not every stage that measures is part of every arm."""
    return any(value is not None for value in found["per_seed"].values())


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


def p_words(claim: dict[str, Any]) -> str:
    """``0.012``, and beside it what Holm's correction makes of it."""
    shown = ["n/a" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}" for p in (claim["p"], claim["corrected_p"])]
    return f"{shown[0]} (Holm: {shown[1]})" if claim["kind"] == "exploratory" else shown[0]


def clock(seconds: float | None) -> str:
    """``m:ss``, or ``h:mm:ss``."""
    if seconds is None:
        return "n/a"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
