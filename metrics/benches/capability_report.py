"""What a run of BiGGen Bench comes to: scalars, tables, a picture, a line for every instance.

Pure functions of ratings. This file does not know who answered or how a judge was asked, nor where a report goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from metrics.benches.capability import (
    OVERALL,
    Impute,
    SelfConsistency,
    aggregate,
    delta,
    intervals,
    length_bias,
    rank_agreement,
    self_consistent,
)
from metrics.intervals import Interval
from metrics.judging.correlation import JudgeCorrelation
from metrics.judging.raters import krippendorff_alpha
from metrics.judging.unread import Unread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = "panel"


@dataclass(frozen=True)
class Evaluator:
    """What one evaluator said.

    Args:
        name: in tables and scalars.
        ratings: by instance: those of an answer, None where none could be read; empty where it was not judged.
        feedback: by instance.
        unread: verdicts that could not be read, where it is known what was said.
    """

    name: str
    ratings: Sequence[Sequence[float | None]]
    feedback: Sequence[str]
    unread: Sequence[Unread] = ()


@dataclass(frozen=True)
class Summing:
    """How ratings become scores.

    Args:
        self_consistency: of several ratings by one evaluator.
        panel: of several evaluators' scores.
        impute: what counts for an answer without a score: nothing, or the lowest one.
    """

    self_consistency: SelfConsistency = "mean"
    panel: SelfConsistency = "mean"
    impute: Impute = "none"


@dataclass(frozen=True)
class CapabilityReport:
    """All that is reported.

    Args:
        scalars: by name, as metrics.json holds them.
        intervals: of means, by name; see `metrics.benches.capability.intervals`.
        means: of `metrics.benches.capability.aggregate`, of the evaluator that counts: the only one, or the panel.
        judges: the same of every evaluator.
        agreement: of every two evaluators, by coefficient.
        versus: of `metrics.benches.capability.delta` to another model, or None.
        rows: a line for every instance.
        verdicts: of all evaluators, and how many of them could not be read.
        unread: those of which it is known what was said.
    """

    scalars: dict[str, float]
    intervals: dict[str, Interval]
    means: dict[str, Any]
    judges: dict[str, dict[str, Any]]
    agreement: dict[tuple[str, str], dict[str, float]]
    versus: dict[str, Any] | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: tuple[int, int] = (0, 0)
    unread: Sequence[Unread] = ()


Instance = Mapping[str, Any]


def capability_report(
    instances: Sequence[Instance],
    evaluators: Sequence[Evaluator],
    summing: Summing = Summing(),
    others: Sequence[Instance] = (),
) -> CapabilityReport:
    """Sum a run up.

    Args:
        instances: ``id``, ``capability``, ``task`` and ``response`` (None where there is none) of each.
        evaluators: who judged, at least one.
        summing: how ratings become scores.
        others: scores of another model to compare with, as `metrics.benches.capability.delta` reads them.
    """
    scored = {one.name: _scored(instances, one, summing.self_consistency) for one in evaluators}
    if len(evaluators) > 1:
        scored[PANEL] = _panel(instances, list(scored.values()), summing.panel)
    records = list(scored.values())[-1]
    means = aggregate(records, impute=summing.impute)
    judges = {name: aggregate(theirs, impute=summing.impute) for name, theirs in scored.items()}
    agreement = {
        (one, other): agreements(scored[one], scored[other])
        for one, other in combinations([evaluator.name for evaluator in evaluators], 2)
    }
    versus = delta(records, others) if others else None
    scalars = _scalars(means) | {"length_bias": length_bias(records).get("", math.nan)}
    for one in evaluators:
        scalars |= _self_agreement(one) | (_of_judge(one.name, judges) if len(evaluators) > 1 else {})
    for pair, found in agreement.items():
        scalars |= {f"agreement/{'~'.join(pair)}/{name}": value for name, value in found.items()}
    if versus is not None:
        scalars |= {f"versus/{name}": float(versus[name]) for name in ("wins", "ties", "losses")}
        scalars["versus/macro"] = versus["intervals"]["macro"].mean
    rows = _rows(records, evaluators, scored)
    around = intervals(records, impute=summing.impute)
    ratings = [rating for one in evaluators for given in one.ratings for rating in given]
    verdicts = len(ratings), sum(rating is None for rating in ratings)
    unread = [verdict for one in evaluators for verdict in one.unread]
    return CapabilityReport(scalars, around, means, judges, agreement, versus, rows, verdicts, unread)


def _scored(instances: Sequence[Instance], evaluator: Evaluator, how: SelfConsistency) -> list[dict[str, Any]]:
    """Records as `aggregate` reads them."""
    return [
        dict(instance) | ({"score": self_consistent(ratings, how)} if len(ratings) else {})
        for instance, ratings in zip(instances, evaluator.ratings, strict=True)
    ]


def _panel(
    instances: Sequence[Instance], scored: Sequence[Sequence[dict[str, Any]]], how: SelfConsistency
) -> list[dict[str, Any]]:
    by_instance = [[one["score"] for one in given if "score" in one] for given in zip(*scored, strict=True)]
    return _scored(instances, Evaluator(PANEL, by_instance, ()), how)


def agreements(one: Sequence[Instance], other: Sequence[Instance]) -> dict[str, float]:
    """How alike two evaluators score the same answers, by coefficient; ``n`` answers have a score of both."""
    metric = JudgeCorrelation()
    metric.update([mine.get("score") for mine in one], [theirs.get("score") for theirs in other])
    return metric.compute()


def _scalars(means: Mapping[str, Any]) -> dict[str, float]:
    return (
        {f"overall_{name}": means[name] for name in OVERALL}
        | {name: means[name] for name in ("coverage", "parse_failure_rate")}
        | {"absent": float(means["absent"]), "null": float(means["null"])}
        | means["per_capability"]
        | means["per_task"]
    )


def _of_judge(name: str, judges: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Means by one of several evaluators, and how it ranks capabilities beside the others (mean of Kendall's tau-b)."""
    means = judges[name]
    scalars = {f"judges/{name}/{part}": value for part, value in _scalars(means).items() if "/" not in part}
    others = [other["per_capability"] for who, other in judges.items() if who not in (name, PANEL)]
    ranks = [rank_agreement(means["per_capability"], theirs) for theirs in others]
    return scalars | {f"judges/{name}/capability_ranks": sum(ranks) / len(ranks)}


def _self_agreement(evaluator: Evaluator) -> dict[str, float]:
    """How alike an evaluator's ratings of one answer are: Krippendorff's alpha of its runs, where there are several."""
    runs = max(map(len, evaluator.ratings), default=0)
    if runs < 2:
        return {}
    table = [[math.nan if r is None else r for r in given] for given in evaluator.ratings if len(given) == runs]
    alpha = krippendorff_alpha(torch.tensor(table, dtype=torch.float64).T, "ordinal")
    return {f"judges/{evaluator.name}/self_alpha": float(alpha)}


def _rows(
    records: Sequence[Instance], evaluators: Sequence[Evaluator], scored: Mapping[str, Sequence[Instance]]
) -> list[dict[str, Any]]:
    """Instances as lines of a file, which serves as responses and as scores again."""
    names = "+".join(one.name for one in evaluators)
    kept = ("id", "capability", "task", "response")
    rows = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {name: record.get(name) for name in kept} | {"score": record.get("score")}
        row["feedback"] = "\n".join(one.feedback[number] for one in evaluators if one.feedback[number])
        row["eval_model_name"] = names
        if len(evaluators) > 1:
            row["scores"] = {one.name: scored[one.name][number].get("score") for one in evaluators}
        if any(len(one.ratings[number]) > 1 for one in evaluators):
            row["ratings"] = {one.name: list(one.ratings[number]) for one in evaluators}
        rows.append(row | {"judged": "score" in record})
    return rows


def score_figure(report: CapabilityReport) -> Figure:
    """A bar for the mean score of each capability with its interval, and a mark for every evaluator of a panel."""
    from matplotlib.figure import Figure

    names = list(report.means["per_capability"])
    figure = Figure(figsize=(6.8, 1.2 + 0.42 * max(len(names), 1)), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
        found = report.intervals[name]
        axis.barh(place, found.mean - 1, left=1, height=0.62, color="#9ecae1", zorder=2)
        if not math.isnan(found.low):
            axis.plot([found.low, found.high], [place, place], color="#08519c", linewidth=1.6, zorder=3)
    single = [name for name in report.judges if name != PANEL]
    for number, judge in enumerate(single if len(single) > 1 else []):
        theirs = report.judges[judge]["per_capability"]
        places = [place for place, name in enumerate(names) if name in theirs]
        values = [theirs[names[place]] for place in places]
        axis.plot(
            values, places, linestyle="", marker="oDs^v"[number % 5], color=f"C{number + 1}", label=judge, zorder=4
        )
    if not math.isnan(report.means["macro"]):
        axis.axvline(report.means["macro"], color="#636363", linestyle="--", linewidth=1, zorder=1, label="macro mean")
        axis.legend(loc="lower right", fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlim=(1, 5), xlabel="mean score from 1 to 5, 95 % interval")
    axis.grid(axis="x", color="#e6e6e6", zorder=0)
    return figure
