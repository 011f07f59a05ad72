"""What a judge's verdicts are worth: agreement with other judges, consistency over orders, and failures, by part.

Verdicts that could not be read are counted and named. They enter no mean, not even where the judge was made to name one
after all; a pair without a preference is wrong. This file knows records and verdicts in plain values. It does not know
who judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from metrics.judging.correlation import JudgeCorrelation, ScoreAccuracy
from metrics.judging.pairs import PairwiseAccuracy, PositionConsistency, merge_orders
from metrics.judging.raters import krippendorff_alpha
from metrics.judging.unread import Unread, examples, share_read
from metrics.report_files import write_lines
from metrics.tables import number, section
from text.judging.judgments import Judgment
from text.whole_files import write_text

Line = dict[str, Any]


@dataclass(frozen=True)
class JudgedRecord:
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
    """Scalars by name, how many verdicts there are, and those that could not be read."""

    scalars: dict[str, float] = field(default_factory=dict)
    verdicts: int = 0
    unread: list[Unread] = field(default_factory=list)

    @property
    def failures(self) -> Counter[str]:
        """Verdicts that could not be read, by reason."""
        return Counter(one.reason for one in self.unread)


def judge_report(judged: Sequence[JudgedRecord]) -> JudgeReport:
    """``direct/...`` and ``pairwise/...`` over all records, and ``direct/<group>/...`` over the parts of each group.

    What the measures are is told in metrics/judging. Of pairs in both orders ``acc_mean`` is the mean accuracy of the
    orders, and ``acc_no_tie``, ``acc_half`` and ``acc_with_tie`` are of one verdict made of both.
    """
    report = JudgeReport()
    groups = sorted({one.group for one in judged if one.group is not None})
    for format, measure in (("direct", _direct), ("pairwise", _pairwise)):
        of_format = [one for one in judged if one.record.format == format]
        for part in [None, *groups] if of_format else []:
            chosen = [one for one in of_format if part is None or one.group == part]
            prefix = format if part is None else f"{format}/{part}"
            report.scalars |= {f"{prefix}/{name}": value for name, value in measure(chosen).items()} if chosen else {}
    report.verdicts = sum(len(one.lines) for one in judged)
    report.unread = [
        Unread(one.name, line["reason"], line.get("feedback", ""))
        for one in judged
        for line in one.lines
        if not line["parsed"]
    ]
    return report


def _failure_rate(judged: Sequence[JudgedRecord]) -> float:
    """The share of verdicts that could not be read, those included that the judge was made to name after all."""
    lines = [line for one in judged for line in one.lines]
    return sum(not line["parsed"] for line in lines) / len(lines)


def _direct(judged: Sequence[JudgedRecord]) -> dict[str, float]:
    """Correlations of the mean over runs with that of the reference, and what else scores tell."""
    runs = [[line["score"] if line["parsed"] else None for line in one.lines] for one in judged]
    scores = [score for of_record in runs for score in of_record if score is not None]
    found = {"mean_score": sum(scores) / len(scores) if scores else math.nan}
    if len(runs[0]) > 1:
        found["alpha"] = float(krippendorff_alpha(torch.tensor(_filled(runs)).T))
    gold = [one.record.mean_score for one in judged]
    if any(score is not None for score in gold):
        correlation, accuracy = JudgeCorrelation(), ScoreAccuracy()
        correlation.update(runs, gold)
        first = [None if of_record[0] is None else math.floor(of_record[0] + 0.5) for of_record in runs]  # 2.5 is 3
        accuracy.update(first, [one.record.scores[0] if one.record.scores else one.record.score for one in judged])
        agreement = correlation.compute()
        found |= {name: agreement[name] for name in ("pearson", "spearman", "kendall", "n_excluded")}
        found |= {name: accuracy.compute()[name] for name in ("accuracy", "mae")}
    return found | {"parse_failure_rate": _failure_rate(judged), "n": float(len(judged))}


def _filled(runs: Sequence[Sequence[float | None]]) -> list[list[float]]:
    return [[math.nan if score is None else score for score in of_record] for of_record in runs]


def _pairwise(judged: Sequence[JudgedRecord]) -> dict[str, float]:
    """Accuracies over pairs, and how far they hang on the order in which responses are shown."""
    gold = [one.record.winner for one in judged]
    orders = [[_said(one, swapped) for one in judged] for swapped in (False, True)]
    found: dict[str, float] = {}
    verdicts: Any = orders[0]
    if any(line["swapped"] for one in judged for line in one.lines):
        position = PositionConsistency()
        position.update(orders[0], orders[1], gold)
        both = position.compute()
        found = {name: both[name] for name in ("acc_mean", "acc_both", "consistency", "first_bias")}
        verdicts = merge_orders(orders[0], orders[1])
    accuracy = PairwiseAccuracy()
    accuracy.update(gold, verdicts)
    measured = accuracy.compute()
    found |= {name: measured[name] for name in ("acc_no_tie", "acc_half", "acc_with_tie")}
    if all(winner is None for winner in gold):
        found = {name: value for name, value in found.items() if not name.startswith("acc")}
    return found | {"parse_failure_rate": _failure_rate(judged), "n": float(len(judged))}


def _said(one: JudgedRecord, swapped: bool) -> str | None:
    """The preference in one order: what most runs said, a tie where they are even, None where none was read."""
    said = Counter(line["preference"] for line in one.lines if line["swapped"] == swapped and line["parsed"])
    del said[None]
    winners = [name for name, count in said.items() if count == max(said.values())]
    if not winners:
        return None
    return winners[0] if len(winners) == 1 else "tie"


def report_text(report: JudgeReport) -> str:
    """What share could be read, all scalars as a table by part, and the failures."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in report.scalars.items():
        part, _, measure = name.rpartition("/")
        parts.setdefault(part, {})[measure] = value
    text = ["# The judge and the others", share_read(report.verdicts, len(report.unread))]
    if report.unread:
        text.append("A pair without a preference that could be read counts as wrong.")
    for format in ("direct", "pairwise"):
        rows = {part: found for part, found in parts.items() if part.split("/")[0] == format}
        if rows:
            head = list(dict.fromkeys(name for found in rows.values() for name in found))
            cells = [[part, *(number(found.get(name, math.nan), 3) for name in head)] for part, found in rows.items()]
            text.append(section(format, "", ["", *head], cells))
    return "\n\n".join([*text, *filter(None, [examples(report.unread)])]) + "\n"


def write_report(report: JudgeReport, judged: Sequence[JudgedRecord], folder: Path) -> Path:
    """``report.md`` and ``verdicts.jsonl``: a line per verdict."""
    write_text(folder / "report.md", report_text(report))
    path = folder / "verdicts.jsonl"
    write_lines(path, ({"id": one.name, "group": one.group, **line} for one in judged for line in one.lines))
    return path
