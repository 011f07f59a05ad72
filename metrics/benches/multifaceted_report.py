"""What a run of Multifaceted Bench comes to: scalars, a table, a picture, a line for every instance.

Pure functions of scores. This file does not know who answered or judged, nor where a report goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.benches.best_of_n import best_of_n_curve
from metrics.benches.diversity import DistinctN, PersonalDiversity
from metrics.benches.multifaceted import HIGHEST, LOWEST, MultifacetedScore, Outcome, TieWinRate, compare
from metrics.intervals import Interval, cluster_bootstrap
from metrics.judging.unread import Unread, examples, share_read
from metrics.report_files import write_figure, write_lines
from metrics.tables import bounds, number, section
from text.whole_files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NULLS = 0.02  # of the judge's answers, before a run says nothing


@dataclass(frozen=True)
class Instance:
    """One instruction under one system message, answered and judged.

    Args:
        id: of the record.
        instruction: of which it is a variant.
        source: part of the benchmark.
        response: the answer that is scored, the first if there are several.
        score: mean over rubrics; None where the judge came to no verdict on any.
        rubrics: the score of each.
        opponent: score of the opponent's answer.
        swapped: score of the answer that was given under another message of the same instruction.
        draws: scores of all answers to it.
        responses: all answers to it.
    """

    id: str
    instruction: str
    source: str
    response: str
    score: float | None
    rubrics: dict[str, float | None] = field(default_factory=dict)
    opponent: float | None = None
    swapped: float | None = None
    draws: tuple[float | None, ...] = ()
    responses: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchReport:
    """All that is reported.

    Args:
        scalars: by name, as metrics.json holds them.
        intervals: of the mean score, by source; "" is all instances.
        rows: a line for every instance.
        versus: whether there was an opponent.
        verdicts: how many there should be.
        unread: those that could not be read.
    """

    scalars: dict[str, float]
    intervals: dict[str, Interval]
    rows: list[dict[str, Any]]
    versus: bool
    verdicts: int = 0
    unread: Sequence[Unread] = ()

    @property
    def valid(self) -> bool:
        """Whether the judge came to a verdict often enough."""
        return bool(self.scalars["valid"])


def bench_report(
    instances: Sequence[Instance],
    *,
    questions: int,
    nulls: int,
    empty: int,
    unread: Sequence[Unread] = (),
    versus: bool = False,
    tie_eps: float = 0.0,
    good_threshold: float = 4.0,
    resamples: int = 1000,
) -> BenchReport:
    """Sum a run up.

    Args:
        instances: all of them.
        questions: how many scores there should be, those of empty answers included.
        nulls: how many of them there are not.
        empty: answers without a word.
        unread: what is known of the nulls.
        versus: whether an opponent was judged too.
        tie_eps: see `compare`.
        good_threshold: see `compare`.
        resamples: of the bootstraps; instructions are drawn, with all their variants.
    """
    sources = list(dict.fromkeys(instance.source for instance in instances))
    metric = MultifacetedScore(sources)
    metric.update([instance.score for instance in instances], [instance.source for instance in instances])
    scalars: dict[str, float] = metric.compute()
    scalars |= {"nulls": nulls, "null_rate": nulls / max(questions, 1), "empty": empty}
    scalars["valid"] = float(scalars["null_rate"] <= MOST_NULLS)
    outcomes = [compare(one.score, one.opponent, tie_eps, good_threshold) if versus else None for one in instances]
    parts = {"": range(len(instances))} | {
        source: [n for n, one in enumerate(instances) if one.source == source] for source in sources if source
    }
    intervals = {}
    for source, numbers in parts.items():
        chosen, end = [instances[n] for n in numbers], f"/{source}" if source else ""
        intervals[source] = _interval(chosen, resamples)
        scalars |= {f"{name}{end}": value for name, value in _of_rubrics(chosen).items()}
        if versus:
            found = _versus(chosen, [outcomes[n] for n in numbers], resamples)
            scalars |= {f"{name}{end}": value for name, value in found.items()}
    scalars |= _diversity(instances) | _sensitivity(instances) | _best_of(instances)
    rows = [_row(one, outcome) for one, outcome in zip(instances, outcomes, strict=True)]
    return BenchReport(scalars, intervals, rows, versus, questions, unread)


def _interval(instances: Sequence[Instance], resamples: int) -> Interval:
    known = [one for one in instances if one.score is not None]
    scores = np.asarray([one.score for one in known], dtype=np.float64)
    found = cluster_bootstrap(scores, [one.instruction for one in known], resamples=resamples)
    return found.within(LOWEST, HIGHEST)


def _of_rubrics(instances: Sequence[Instance]) -> dict[str, float]:
    """The mean score of each rubric that has a short name: a criterion written for one instance is no column."""
    found: dict[str, list[float]] = {}
    for instance in instances:
        for name, score in instance.rubrics.items():
            if score is not None:
                found.setdefault(name, []).append(score)
    return {f"rubric/{name}": float(np.mean(scores)) for name, scores in found.items() if " " not in name}


def _versus(instances: Sequence[Instance], outcomes: Sequence[Outcome | None], resamples: int) -> dict[str, float]:
    numbers = {group: n for n, group in enumerate(dict.fromkeys(one.instruction for one in instances))}
    metric = TieWinRate(resamples)
    metric.update(outcomes, [numbers[one.instruction] for one in instances])
    found = metric.compute()
    return {name: found[name] for name in ("win_rate", "tie_win_rate", "tie_win_rate_all")} | {
        "tie_win_rate_se": found["se"]
    }


def _diversity(instances: Sequence[Instance]) -> dict[str, float]:
    """Of answers to one instruction under its messages; of several answers to one instance, dist-n."""
    groups: dict[str, list[str]] = {}
    for one in instances:
        groups.setdefault(one.instruction, []).append(one.response)
    personal = PersonalDiversity()
    personal.update(list(groups.values()))
    found = personal.compute() if any(len(texts) > 1 for texts in groups.values()) else {}
    if any(len(one.responses) > 1 for one in instances):
        for n in (2, 3):
            metric = DistinctN(n)
            metric.update([one.responses for one in instances])
            found[f"dist_{n}"] = float(metric.compute())
    return found


def _sensitivity(instances: Sequence[Instance]) -> dict[str, float]:
    """What an answer loses by being given under another message: 0 where messages are not read."""
    lost = [one.score - one.swapped for one in instances if one.score is not None and one.swapped is not None]
    return {"sensitivity": float(np.mean(lost))} if lost else {}


def _best_of(instances: Sequence[Instance]) -> dict[str, float]:
    scores = [[score for score in one.draws if score is not None] for one in instances]
    if not scores or min(map(len, scores)) < 2:
        return {}
    return {f"best_of/{n}": value for n, value in best_of_n_curve(scores).items()}


def _row(one: Instance, outcome: Outcome | None) -> dict[str, Any]:
    """An instance as a line of a file."""
    kept = {name: value for name, value in asdict(one).items() if name not in ("draws", "responses")}
    draws = {"draws": list(one.draws), "responses": list(one.responses)} if len(one.responses) > 1 else {}
    return kept | {"outcome": outcome} | draws


# --- for readers ------------------------------------------------------------------------------------------------------


def report_text(report: BenchReport, example: str, notes: Sequence[str] = ()) -> str:
    """The report in markdown.

    Args:
        report: of a run.
        example: the first question as the judge was asked it, since scores hinge on how it is put together.
        notes: what else a reader should know, a sentence each.
    """
    s = report.scalars
    head = ["", "instances", "score", *(["wins", "tie+win", "tie+win, all ties"] if report.versus else [])]
    rows = [_table_row(report, source) for source in [*(part for part in report.intervals if part), ""]]
    about = (
        f"Scores from {LOWEST:g} to {HIGHEST:g}, in brackets 95 % intervals, instructions drawn with their variants. "
        f"The mean over sources is {number(s['macro'])}; the last row weighs every instance the same, as the paper's "
        "average does."
    )
    if not all(found.low < found.high for found in report.intervals.values()):
        about += " Without brackets: fewer than two instructions have a score, or all the same, which tells no spread."
    if report.versus:
        about += (
            " Tie+win counts wins and ties of two good answers, as the paper does; a tie of two bad ones is nobody's."
        )
    lines = [
        share_read(report.verdicts, int(s["nulls"])),
        *notes,
        f"The judge came to no verdict on {s['nulls']:.0f} questions ({100 * s['null_rate']:.2f} %); {s['empty']:.0f} "
        f"answers were empty; {s['excluded']:.0f} instances have no score and are left out.",
        *(f"{told}: {number(s[name], 3)}." for name, told in TOLD.items() if name in s),
    ]
    if curve := {name: value for name, value in s.items() if name.startswith("best_of/")}:
        lines.append("Best of N by the judge: " + ", ".join(f"{n[8:]}: {number(v)}" for n, v in curve.items()) + ".")
    if not report.valid:
        lines.insert(0, f"**INVALID**: more than {100 * MOST_NULLS:g} % of the judge's answers are no verdict.")
    text = section("Scores by source", about, head, rows)
    told = "\n".join(["# Multifaceted Bench", "", *(f"- {line}" for line in lines)])
    asked = f"The first question: `{example!r}`"
    return "\n\n".join(part for part in (told, text, examples(report.unread), asked) if part) + "\n"


TOLD = {
    "sensitivity": "Score of answers less that of answers given under another message (0: messages are not read)",
    "rouge_l": "ROUGE-L between answers to one instruction under its messages (lower is more personal)",
    "rouge_l_max": "ROUGE-L of the most alike two",
    "dist_2": "dist-2 of the samples of a prompt",
    "dist_3": "dist-3 of the samples of a prompt",
}


def _table_row(report: BenchReport, source: str) -> list[str]:
    found, end = report.intervals[source], f"/{source}" if source else ""
    count = sum(row["source"] == source or not source for row in report.rows)
    cells = [source or "all", str(count), f"{number(found.mean)} {bounds(found.low, found.high)}".strip()]
    if report.versus:
        rates = [report.scalars[f"{name}{end}"] for name in ("win_rate", "tie_win_rate", "tie_win_rate_all")]
        error = report.scalars[f"tie_win_rate_se{end}"]
        percents = [number(100 * rate, 1) for rate in rates]
        percents[1] += f" ± {number(100 * error, 1)}"
        cells += percents
    return cells


def score_figure(report: BenchReport) -> Figure:
    """Mean score of each source with its interval."""
    from matplotlib.figure import Figure

    parts = [source for source in report.intervals if source] or [""]
    figure = Figure(figsize=(6.4, 0.8 + 0.36 * len(parts)), layout="constrained")
    axis = figure.subplots()
    for place, source in enumerate(reversed(parts)):
        found = report.intervals[source]
        errors = np.nan_to_num([[found.mean - found.low], [found.high - found.mean]])
        axis.errorbar(found.mean, place, xerr=np.maximum(errors, 0), fmt="o", color="C0", capsize=2)
    axis.set_yticks(range(len(parts)), [part or "all" for part in reversed(parts)])
    axis.set(xlim=(LOWEST - 0.1, HIGHEST + 0.1), ylim=(-0.6, len(parts) - 0.4), xlabel="mean score, 95 % interval")
    axis.grid(color="#e6e6e6")
    return figure


def write_report(report: BenchReport, example: str, folder: Path, notes: Sequence[str] = ()) -> Path:
    """Write report.md, scores.png, instances.jsonl and, for each source, <source>.jsonl; tell where report.md is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "instances.jsonl", report.rows)
    for source in Counter(row["source"] for row in report.rows):
        if source:
            write_lines(folder / f"{source}.jsonl", [row for row in report.rows if row["source"] == source])
    write_figure(folder / "scores.png", score_figure(report))
    write_text(folder / "report.md", report_text(report, example, notes))
    return folder / "report.md"
