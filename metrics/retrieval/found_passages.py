"""What a search found, as files: passages for those who read them, and a TREC run for those who judge.

This file knows tasks and search results. It does not know what searched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from metrics.report_files import write_lines
from metrics.retrieval.ranks import SearchResult
from text.retrieval.tasks import RetrievalTask
from text.whole_files import write_text


def without_itself(result: SearchResult, queries: Collection[str], k: int) -> SearchResult:
    """The first k of each query, where some queries do not find the passage with their own id; later ones move up."""
    place = {document: number for number, document in enumerate(result.documents) if document in queries}
    own_Q = np.asarray([place.get(query, -2) for query in result.queries])
    itself_QK = result.index_QK == own_Q[:, None]
    kept = np.argsort(itself_QK, axis=1, kind="stable")[:, :k]
    index = np.take_along_axis(np.where(itself_QK, -1, result.index_QK), kept, axis=1)
    return replace(result, index_QK=index, score_QK=np.take_along_axis(result.score_QK, kept, axis=1))


def trec_lines(result: SearchResult, tag: str = "seedling") -> Iterator[str]:
    """A TREC run: ``query Q0 passage rank score tag``."""
    for query, index, score in zip(result.queries, result.index_QK, result.score_QK, strict=True):
        for rank, (number, value) in enumerate(zip(index.tolist(), score.tolist(), strict=True), 1):
            if number >= 0:
                yield f"{query} Q0 {result.documents[number]} {rank} {value:.9g} {tag}\n"


def passage_lines(task: RetrievalTask, result: SearchResult) -> Iterator[dict[str, Any]]:
    """Each query with its passages, best first: ``id``, ``query``, ``instruction`` where it has one, ``passages``.

    Args:
        task: what was asked.
        result: what was found for its queries, in their order, among its passages that can be found.
    """
    for query, index, score in zip(task.queries, result.index_QK.tolist(), result.score_QK.tolist(), strict=True):
        asked = {"id": query.id, "query": query.query}
        if query.instruction:
            asked["instruction"] = query.instruction
        found = zip(index, score, strict=True)
        yield asked | {"passages": [asdict(task.findable[row]) | {"score": s} for row, s in found if row >= 0]}


def write_found(task: RetrievalTask, result: SearchResult, k: int, log_dir: str | None) -> None:
    """Write <task>.jsonl and <task>.trec into the folder ``retrieval`` of a run's folder, if it has one.

    Args:
        task: what was asked.
        result: as `judge` takes it (metrics/retrieval/retrieval_report.py).
        k: passages kept of each query.
        log_dir: the run's folder.
    """
    result = without_itself(result, task.itself, k)
    if log_dir is None:
        return
    (folder := Path(log_dir) / "retrieval").mkdir(parents=True, exist_ok=True)
    write_lines(folder / f"{task.name}.jsonl", passage_lines(task, result))
    write_text(folder / f"{task.name}.trec", "".join(trec_lines(result)))
    print(f"Passages: {folder / f'{task.name}.jsonl'} ({len(task.queries):,} queries; {task.name}.trec is a TREC run)")
