"""What a judge's verdicts are worth: agreement with other judges, consistency over orders, and failures, by part.

Verdicts that could not be read are counted and named; of scores they enter no mean, and a pair without a preference is
wrong. This file knows records and verdicts in plain values. It does not know who judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics.capability_report import coefficients
from metrics.report_files import write_lines, write_text
from metrics.tables import number, section
from text.judgments import Judgment

Line = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A record and what a judge said of it.

    Args:
        name: of the record.
        record: with the verdict of others, if it has one.
        lines: every verdict: ``swapped`` (whether the responses were shown in the other order), ``score`` or
            ``preference`` (A or B as the record has them), ``parsed``, ``reason`` and others.
        group: the part of the test that it belongs to.
    """

    name: str
    record: Judgment
    lines: Sequence[Line]
    group: str | None = None


@dataclass
class JudgeReport:
    """Scalars by name, and verdicts that could not be read by reason."""

    scalars: dict[str, float] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


def judge_report(judged: Sequence[Judged]) -> JudgeReport:
    """``direct/...`` and ``pairwise/...`` over all records, and ``direct/<group>/...`` over the parts of each group.

    Accuracies are shares of pairs whose true winner is not a tie; a tie that a judge names is wrong there.
    """
    report = JudgeReport()
    groups = sorted({one.group for one in judged if one.group is not None})
    for format, measure in (("direct", _direct), ("pairwise", _pairwise)):
        of_format = [one for one in judged if one.record.format == format]
        for part in [None, *groups] if of_format else []:
            chosen = [one for one in of_format if part is None or one.group == part]
            prefix = format if part is None else f"{format}/{part}"
            report.scalars |= {f"{prefix}/{name}": value for name, value in measure(chosen).items()} if chosen else {}
    report.failures.update(line["reason"] for one in judged for line in one.lines if not line["parsed"])
    return report


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _failures(judged: Sequence[Judged]) -> dict[str, float]:
    lines = [line for one in judged for line in one.lines]
    return {"parse_failure_rate": _mean([not line["parsed"] for line in lines]), "n": float(len(judged))}


def _direct(judged: Sequence[Judged]) -> dict[str, float]:
    """Correlations of the mean over runs with that of the reference, and what else scores tell."""
    given = {one.name: [line["score"] for line in one.lines if line["score"] is not None] for one in judged}
    scores = [score for of_record in given.values() for score in of_record]
    found = _failures(judged) | {"mean_score": _mean(scores)}
    both = [(one, given[one.name]) for one in judged if given[one.name] and one.record.mean_score is not None]
    if not both:
        return found
    gold = [float(one.record.mean_score or 0) for one, _ in both]
    said = [_mean(of_record) for _, of_record in both]
    exact = [round(of_record[0]) == (one.record.score or one.record.scores[0]) for one, of_record in both]  # type: ignore[index]
    return found | {
        **{name: value for name, value in coefficients(said, gold).items() if name != "n"},
        "accuracy": _mean(exact),
        "mae": _mean([abs(mine - theirs) for mine, theirs in zip(said, gold, strict=True)]),
    }


def _pairwise(judged: Sequence[Judged]) -> dict[str, float]:
    """Accuracies over pairs, and how far they hang on the order in which responses are shown."""
    found = _failures(judged)
    orders = {one.name: _by_order(one) for one in judged}
    first = [_is_first(line) for one in judged for line in one.lines if line["preference"] in ("A", "B")]
    found["first_bias"] = _mean(first) - 0.5
    both = [orders[one.name] for one in judged if len(orders[one.name]) == 2]
    if both:
        found["consistency"] = _mean([None not in pair and pair[0] == pair[1] for pair in both])
    decided = [one for one in judged if one.record.winner in ("A", "B")]
    if decided:
        right = [[said == one.record.winner for said in orders[one.name]] for one in decided]
        found["acc_no_tie"] = _mean([_mean(pair) for pair in right])
        if both:
            found["acc_both"] = _mean([all(pair) for pair in right])
    if any(one.record.winner == "tie" for one in judged):
        found["acc_with_tie"] = _mean([_merged(orders[one.name]) == one.record.winner for one in judged])
    return found


def _by_order(one: Judged) -> list[str | None]:
    """The preference in each order that was shown: what most runs said, a tie where they are even."""
    found: list[str | None] = []
    for swapped in (False, True):
        said = Counter(line["preference"] for line in one.lines if line["swapped"] == swapped)
        if said:
            del said[None]
            best = max(said.values(), default=0)
            winners = [name for name, count in said.items() if count == best]
            found.append(None if not winners else winners[0] if len(winners) == 1 else "tie")
    return found


def _merged(orders: Sequence[str | None]) -> str | None:
    """One verdict of both orders: where they disagree it is a tie."""
    if None in orders:
        return None
    return orders[0] if len(set(orders)) == 1 else "tie"


def _is_first(line: Line) -> bool:
    """Whether the response that was shown first was preferred."""
    return (line["preference"] == "A") != line["swapped"]


def report_text(report: JudgeReport) -> str:
    """All scalars as a table by part, and the failures."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in report.scalars.items():
        part, _, measure = name.rpartition("/")
        parts.setdefault(part, {})[measure] = value
    text = ["# The judge and the others"]
    for format in ("direct", "pairwise"):
        rows = {part: found for part, found in parts.items() if part.split("/")[0] == format}
        if rows:
            head = list(dict.fromkeys(name for found in rows.values() for name in found))
            cells = [[part, *(number(found.get(name, math.nan), 3) for name in head)] for part, found in rows.items()]
            text.append(section(format, "", ["", *head], cells))
    told = ", ".join(f"{reason} {count}" for reason, count in report.failures.most_common())
    text.append(f"Verdicts that could not be read: {told or 'none'}.")
    return "\n\n".join(text) + "\n"


def write_report(report: JudgeReport, judged: Sequence[Judged], folder: Path) -> Path:
    """``report.md`` and ``verdicts.jsonl``: a line per verdict."""
    write_text(folder / "report.md", report_text(report))
    path = folder / "verdicts.jsonl"
    write_lines(path, ({"id": one.name, "group": one.group, **line} for one in judged for line in one.lines))
    return path
