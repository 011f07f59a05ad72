"""A folder in BEIR's layout: tables and judgements become passages, queries and tasks.

Knows files and records. It does not know what is done with a task.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.records import Source, read_records
from text.errors import DataFormatError, UserError
from text.records import Located
from text.retrieval.retrieval_records import PassageRecord, QueryRecord
from text.retrieval.tasks import GroupBy, Passage, Query, RetrievalTask, group_of, topic_of
from text.suggestions import missing_file

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def local_folder(path: str) -> Path:
    """The folder of a path or of a hub data set, whose tables are fetched.

    Raises:
        UserError: if it is not there.
    """
    if path.startswith("hub:"):
        from huggingface_hub import snapshot_download

        name, _, revision = path.removeprefix("hub:").partition("@")
        try:
            patterns = ["*.jsonl", "*.jsonl.gz", "*.parquet", "*.tsv"]
            return Path(
                snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=patterns)
            )
        except Exception as error:  # every kind of library and network error
            raise UserError(f"cannot open '{path}': {type(error).__name__}: {error}") from error
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(missing_file(folder))
    return folder


def find_table(folder: Path, name: str) -> str:
    """The file, or glob of files, that holds a table of a folder.

    Raises:
        UserError: if there is none.
    """
    for suffix in SUFFIXES:
        if (file := folder / f"{name}{suffix}").is_file():
            return str(file)
        if any((folder / name).glob(f"*{suffix}")):
            return str(Path(glob.escape(str(folder / name))) / f"*{suffix}")
    raise UserError(missing_file(folder / f"{name}.jsonl"))


def read_passages(source: Source) -> tuple[Passage, ...]:
    """The collection; what stands in place of missing texts is counted.

    Raises:
        DataFormatError: if no passage says anything.
    """
    records = read_records(source, PassageRecord, "corpus")
    passages = tuple(Passage(r.record.id, r.record.title, r.record.text) for r in records)
    titles = [r.where for r, p in zip(records, passages, strict=True) if p.readable and not p.text.strip()]
    silent = [r.where for r, p in zip(records, passages, strict=True) if not p.readable]
    if len(silent) == len(passages):
        told = f"{silent[0]}: field 'text': empty or missing here and in all passages, as is 'title'"
        raise DataFormatError([f"{told}: give what a passage says as 'text' ('contents' is read too)"])
    for found, what in ((titles, "are read by their title"), (silent, "have no title either: nothing can find them")):
        if found:
            rank_zero_info(f"{len(found):,} passages without text {what}; the first: {found[0]}")
    return passages


def made_queries(queries: Sequence[Located[QueryRecord]], group_by: GroupBy = "query") -> list[Query]:
    """Queries with their group: as the record says, or as the id spells it."""
    made = []
    for located in queries:
        instruction, query = located.record.parts()
        name, group = located.record.id, located.record.group_id
        made.append(Query(name, query, instruction, group or group_of(name, group_by), group or topic_of(name)))
    return made


def judged_task(
    name: str,
    queries: Sequence[Query],
    passages: tuple[Passage, ...],
    qrels: dict[str, dict[str, int]],
    ask_all: bool = False,
    **more: Any,
) -> RetrievalTask:
    """The task of the queries that something is relevant to; the others are counted and left out.

    Args:
        name: of the task.
        queries: what may be asked.
        passages: the collection.
        qrels: query id -> passage id -> relevance.
        ask_all: leave none out: results are not scored.
        more: see RetrievalTask.

    Raises:
        UserError: if none is left.
    """
    answered = {query: judged for query, judged in qrels.items() if any(value > 0 for value in judged.values())}
    if ask_all:
        answered = {query.id: qrels.get(query.id, {}) for query in queries}
    asked = tuple(query for query in queries if query.id in answered)
    if not asked:
        raise UserError(f"task '{name}': no query has a relevant passage")
    if left := len(queries) - len(asked):
        rank_zero_info(f"task '{name}': {left} of {len(queries)} queries left out, nothing is relevant to them")
    task = RetrievalTask(name, asked, passages, {query.id: answered[query.id] for query in asked}, **more)
    if kept := len(task.identical_ids) - len(task.itself):
        rank_zero_info(f"task '{name}': {kept} queries share their id with a passage: a passage like any other")
    if task.itself:
        rank_zero_info(
            f"task '{name}': {len(task.itself)} queries stand in the collection themselves, by id"
            f"{' and text' if task.ignore_identical_ids == 'auto' else ''}: left out of their own results, as BEIR does"
            " (data.ignore_identical_ids: false keeps them)"
        )
    return task
