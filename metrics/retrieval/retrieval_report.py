"""What a retriever scores on its tasks, and what it could score without reading instructions: table, figure, files.

This file knows tasks and search results. It does not know what searched.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.intervals import cluster_bootstrap
from metrics.report_files import write_figure, write_lines
from metrics.retrieval.found_passages import trec_lines, without_itself
from metrics.retrieval.instruction_following import blind_ceiling, sibling_scores
from metrics.retrieval.ranks import SearchResult, group_minima, macro_mean, mrr, ndcg, recall
from metrics.tables import bounds, section
from text.excerpts import printable, shorten
from text.json_lines import plain
from text.retrieval.tasks import RetrievalTask
from text.whole_files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = ("task", "queries", "nDCG@10", "blind", "Robustness@10", "blind", "MRR@10", "Recall@100", "sibling accuracy")
DEEPEST = 100
"""The last place that a score looks at, that of Recall@100: a search that is judged goes as deep, whatever is kept."""


@dataclass(frozen=True)
class TaskReport:
    """How one task went.

    Args:
        name: of the task.
        scores: plain JSON, fractions in [0, 1]; null where a score has no meaning here.
        rows: one for each query.
        groups: one for each group of queries, with its Robustness@10.
        result: what was found, as much of it as is kept.
    """

    name: str
    scores: dict[str, Any]
    rows: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    result: SearchResult


def judge(task: RetrievalTask, result: SearchResult, k: int, resamples: int = 1000, seed: int = 0) -> TaskReport:
    """Score a search.

    Args:
        task: what was asked.
        result: what was found for its queries, in their order: k of each, or `DEEPEST` if that is more; one more
            where queries stand in the collection themselves (`RetrievalTask.itself`), which are left out here.
        k: passages kept of each query, in the report.
        resamples: bootstrap draws of whole topics behind each interval, for the queries of a topic hang together.
        seed: of the bootstrap.
    """
    result = without_itself(result, task.itself, max(k, DEEPEST))
    ranks = result.ranks({query.id: task.qrels[query.id] for query in task.queries})
    values = {"ndcg@10": ndcg(ranks, 10), "mrr@10": mrr(ranks, 10), "recall@100": recall(ranks, 100)}
    groups, topics = [q.group for q in task.queries], [q.topic for q in task.queries]
    relevant, candidates = task.relevant(), task.candidates()
    worst = group_minima(values["ndcg@10"], groups)
    topic_of_group: dict[Hashable, str] = dict(zip(groups, topics, strict=True))
    of_worst = [topic_of_group[group] for group in worst]
    spread: dict[str, Any] = {"resamples": resamples, "seed": seed}
    drawn = {"ndcg@10": (values["ndcg@10"], topics), "robustness@10": (np.asarray([*worst.values()]), of_worst)}
    intervals = {name: cluster_bootstrap(*rows, **spread).within(0, 1) for name, rows in drawn.items()}
    ceiling = blind_ceiling(relevant, [len(passages) for passages in candidates], groups)
    siblings = sibling_scores(result, relevant, candidates, topics)
    scores = {name: float(value.mean()) for name, value in values.items()} | {
        "robustness@10": intervals["robustness@10"].mean,
        "macro_ndcg@10": macro_mean(values["ndcg@10"], groups),
        "queries": len(task.queries),
        "groups": len(worst),
        "passages": len(task.passages),
        "unfindable_passages": len(task.passages) - len(task.findable),
        "ignored_identical_ids": len(task.itself),
        "interval": {name: [found.low, found.high] for name, found in intervals.items()},
        "blind_ceiling": {
            "ndcg@10": ceiling.ndcg,
            "macro_ndcg@10": ceiling.macro_ndcg,
            "robustness@10": ceiling.robustness,
        },
        "instruction_gain": float(values["ndcg@10"].mean()) - ceiling.ndcg,
        "sibling_accuracy": siblings.accuracy,
        "sibling_pmrr": siblings.pmrr,
        "rank_churn": siblings.churn,
    }
    first = ranks.per_query(ranks.within(result.index_QK.shape[1]) * 1.0) > 0
    rank = np.where(first, 1 / np.maximum(mrr(ranks, result.index_QK.shape[1]), 1e-9), 0).round().astype(int)
    rows = [
        {"task": task.name, "query": query.id, "group": query.group, "topic": query.topic}
        | {name: float(value[place]) for name, value in values.items()}
        | {"first_relevant_rank": int(rank[place]) or None}
        for place, query in enumerate(task.queries)
    ]
    of_groups = [
        {"task": task.name, "group": group, "topic": topic_of_group[group], "robustness@10": float(value)}
        for group, value in worst.items()
    ]
    return TaskReport(task.name, plain(scores), rows, of_groups, result.first(k))


def headline(report: TaskReport) -> dict[str, float]:
    """The scores that a validation logs, where they have a meaning."""
    names = ("ndcg@10", "robustness@10", "mrr@10", "recall@100", "instruction_gain")
    return {f"val/{name}": report.scores[name] for name in names if report.scores[name] is not None}


def nested_results(reports: Sequence[TaskReport], **more: Any) -> dict[str, Any]:
    """The scores of the first task, those of the others under their names, and whatever else is to be kept."""
    return reports[0].scores | {"task": reports[0].name} | {r.name: r.scores for r in reports[1:]} | more


def table(reports: Sequence[TaskReport], example: str) -> str:
    """All tasks in markdown, times 100, with 95 % intervals over topics and the instruction-blind ceilings.

    Args:
        reports: of the tasks.
        example: the first query as it was read, since results hinge on how it is put together.
    """

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    def estimate(scores: dict[str, Any], name: str) -> str:
        low, high = scores["interval"][name]
        return f"{percent(scores[name])} {'' if low is None else bounds(100 * low, 100 * high)}".strip()

    rows = [
        (
            report.name,
            f"{(s := report.scores)['queries']:,} in {s['passages']:,}",
            estimate(s, "ndcg@10"),
            percent(s["blind_ceiling"]["ndcg@10"]),
            estimate(s, "robustness@10"),
            percent(s["blind_ceiling"]["robustness@10"]),
            percent(s["mrr@10"]),
            percent(s["recall@100"]),
            percent(s["sibling_accuracy"]),
        )
        for report in reports
    ]
    told = [low is not None and low < high for report in reports for low, high in report.scores["interval"].values()]
    alone = "" if all(told) else " Without brackets: a single topic, or several that score the same, tell no spread."
    about = (
        "Times 100; in brackets 95 % intervals, topics drawn with replacement. Blind: what a retriever scores that "
        f"finds every topic and does not read instructions.{alone} The first query as it was read:"
        f" `{printable(shorten(example, 1000))}`"
    )
    for report in reports:
        if own := report.scores["ignored_identical_ids"]:
            about += (
                f"\n\n{report.name}: {own:,} queries stand in the collection themselves, and do not find themselves."
            )
        if silent := report.scores["unfindable_passages"]:
            about += f"\n\n{report.name}: {silent:,} passages have neither text nor title; nothing can find them."
    return section("Retrieval", about, HEAD, rows) + "\n"


def ndcg_robustness_figure(reports: Sequence[TaskReport]) -> Figure:
    """Mean against worst of the group, per task, with intervals; a hollow mark is the instruction-blind ceiling."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color="#999999", lw=0.8, zorder=0)
    for number, report in enumerate(reports):
        scores, colour = report.scores, f"C{number}"
        x, y = 100 * scores["ndcg@10"], 100 * scores["robustness@10"]
        errors = [_whisker(scores, name) for name in ("ndcg@10", "robustness@10")]
        axis.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt="o", color=colour, label=report.name, capsize=2)
        blind = [scores["blind_ceiling"][name] for name in ("ndcg@10", "robustness@10")]
        if None not in blind:
            axis.plot(100 * blind[0], 100 * blind[1], "o", mfc="none", mec=colour)
    axis.set(
        xlim=(0, 101), ylim=(0, 101), xlabel="nDCG@10, mean of queries", ylabel="Robustness@10, worst of each group"
    )
    axis.set_title("Filled: measured, 95 % intervals. Hollow: instruction-blind ceiling", fontsize=9, loc="left")
    axis.legend(frameon=False, fontsize=8)
    axis.grid(color="#e6e6e6")
    return figure


def _whisker(scores: dict[str, Any], name: str) -> np.ndarray | None:
    low, high = scores["interval"][name]
    if low is None:
        return None
    return 100 * np.maximum([[scores[name] - low], [high - scores[name]]], 0)


def tell(reports: Sequence[TaskReport], example: str, log_dir: str | None) -> None:
    """Print the table, and write all files into the folder ``retrieval`` of a run's folder, if it has one."""
    print(table(reports, example))
    if log_dir is not None:
        write_report(reports, example, Path(log_dir) / "retrieval")


def write_report(reports: Sequence[TaskReport], example: str, folder: Path) -> None:
    """Write report.md, per_query.jsonl, per_group.jsonl, ndcg_robustness.png and, for each task, <task>.trec."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "per_query.jsonl", (row for report in reports for row in report.rows))
    write_lines(folder / "per_group.jsonl", (row for report in reports for row in report.groups))
    for report in reports:
        write_text(folder / f"{report.name}.trec", "".join(trec_lines(report.result)))
    write_figure(folder / "ndcg_robustness.png", ndcg_robustness_figure(reports))
    write_text(folder / "report.md", table(reports, example))
