"""A report of BiGGen Bench for readers: markdown, and the files of a run.

This file knows a report. It does not know how its numbers came about (metrics/benches/capability_report.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metrics.benches.capability import OVERALL
from metrics.benches.capability_report import CapabilityReport, score_figure
from metrics.intervals import Interval
from metrics.judging.unread import examples, share_read
from metrics.report_files import write_figure, write_lines
from metrics.tables import bounds, number, section
from text.excerpts import markdown_table
from text.whole_files import write_text

WORST = 10  # instances that are shown
OVERALLS = dict(
    zip(OVERALL, ("mean over capabilities (macro)", "mean over instances (micro)", "mean over tasks"), strict=True)
)


def capability_table(report: CapabilityReport) -> str:
    """Means by capability, and the overall ones below."""
    head = ["", "scores", "mean", "95 % interval"]
    parts = [*report.means["per_capability"], *OVERALLS]
    rows = [_row(OVERALLS.get(part, part), report.intervals[part]) for part in parts if part in report.intervals]
    return section("Scores by capability", _about(report), head, rows)


def report_text(report: CapabilityReport, notes: Sequence[str] = ()) -> str:
    """The report in markdown.

    Args:
        report: of a run.
        notes: what else a reader should know, a sentence each.
    """
    tasks = [_row(name, report.intervals[name]) for name in sorted(report.means["per_task"])]
    parts = [
        "# BiGGen Bench",
        "\n".join(f"- {note}" for note in [share_read(*report.verdicts), _counts(report), *notes]),
        capability_table(report),
        _judges(report),
        _agreement(report),
        _versus(report),
        section("Scores by task", "", ["task", "scores", "mean", "95 % interval"], tasks),
        _worst(report.rows),
        examples(report.unread),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(name: str, found: Interval) -> list[str]:
    why = "one score" if found.n == 1 else "all scores are equal"
    return [name, str(found.n), number(found.mean), bounds(found.low, found.high) or f"none: {why}"]


def _about(report: CapabilityReport) -> str:
    who = list(report.judges)
    judged = f"by {who[0]}" if len(who) == 1 else f"by a panel of {', '.join(who[:-1])}"
    return f"Scores from 1 to 5, {judged}. Intervals are of new instances of the same tasks."


def _counts(report: CapabilityReport) -> str:
    means = report.means
    rate = means["parse_failure_rate"]
    failed = "" if math.isnan(rate) else f" ({100 * rate:.2f} %)"
    scores = {row["score"] for row in report.rows if row["score"] is not None}
    same = f" Caution: every score is {scores.pop():g}; was anything judged?" if len(scores) == 1 else ""
    return (
        f"{means['parsed']:,} of {means['expected']:,} instances have a score; of the others {means['null']:,}{failed} "
        f"were judged without a score that could be read, and {means['absent']:,} were not judged. "
        f"Correlation of score and length: {number(report.scalars['length_bias'])}.{same}"
    )


def _judges(report: CapabilityReport) -> str:
    if len(report.judges) < 2:
        return ""
    capabilities = list(report.means["per_capability"])
    head = ["", *report.judges]
    lines = [("macro", "macro"), ("micro", "micro"), ("coverage", "coverage")]
    rows = [[told, *(number(means[name]) for means in report.judges.values())] for told, name in lines]
    rows += [
        [name, *(number(means["per_capability"].get(name, math.nan)) for means in report.judges.values())]
        for name in capabilities
    ]
    return section("Evaluators", "The panel is what counts above.", head, rows)


def _agreement(report: CapabilityReport) -> str:
    head = ["", "answers", "Pearson", "Spearman", "Kendall tau-b", "Krippendorff alpha"]
    names = ("pearson", "spearman", "kendall", "alpha")
    rows = [
        [" and ".join(pair), f"{found['n']:.0f}", *(number(found[name], 3) for name in names)]
        for pair, found in report.agreement.items()
    ]
    return section("Agreement of evaluators", "On answers that both gave a score.", head, rows)


def _versus(report: CapabilityReport) -> str:
    if report.versus is None:
        return ""
    found = report.versus
    about = (
        f"On the {found['n']:,} instances for which both have a score, and so on the same capabilities: "
        f"{found['wins']:,} wins, {found['ties']:,} ties, {found['losses']:,} losses. Positive: this model is better."
    )
    parts = [name for name in found["intervals"] if "/" not in name]
    rows = [_row(OVERALLS.get(name, name), found["intervals"][name]) for name in parts]
    return section("Against the other model", about, ["", "instances", "difference", "95 % interval"], rows)


def _worst(rows: Sequence[dict[str, Any]]) -> str:
    known = sorted((row for row in rows if row["score"] is not None), key=lambda row: row["score"])
    shown = [(row["id"], number(row["score"]), row["feedback"], row["response"] or "") for row in known[:WORST]]
    if not shown:
        return ""
    table = markdown_table(["instance", "score", "feedback", "response"], shown, 300)
    return f"## The {len(shown)} lowest scores\n\n{table}"


def write_report(report: CapabilityReport, folder: Path, notes: Sequence[str] = ()) -> Path:
    """Write report.md, scores.png and instances.jsonl; tell where report.md is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "instances.jsonl", report.rows)
    write_figure(folder / "scores.png", score_figure(report))
    write_text(folder / "report.md", report_text(report, notes))
    return folder / "report.md"
