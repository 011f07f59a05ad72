"""Relevance judgements: the tab-separated files of BEIR and TREC, checked against the queries and the collection.

This file knows lines and ids. It does not know what a passage says, nor how a judgement is scored
(metrics/retrieval/ranks.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from text.errors import DataFormatError, UserError
from text.suggestions import missing_file

QUERY_NAMES = ("query-id", "query_id", "queryid", "qid", "query", "topic", "topic-id", "topic_id")
SCORE_NAMES = ("score", "relevance", "rel", "label", "judgment", "judgement", "grade")
"""By the first name or the last one a first line is known to be a header."""

DIGITS = 9  # of a relevance


class Judgement(NamedTuple):
    """One line of a judgement file, and where it stood."""

    query: str
    passage: str
    relevance: int
    where: str


def read_qrels(path: Path) -> list[Judgement]:
    """The judgements of a file; see `parse_qrels`.

    Raises:
        UserError: if there is no such file.
        DataFormatError: for lines that are no judgements, or no UTF-8.
    """
    if not path.is_file():
        raise UserError(missing_file(path))
    return parse_qrels(_decoded(path), str(path))


def _decoded(path: Path) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield line.removeprefix(b"\xef\xbb\xbf").decode()
            except UnicodeDecodeError as error:
                raise DataFormatError([f"{path}:{number}: not UTF-8 text: {error.reason}"]) from error


def parse_qrels(lines: Iterable[str], source: str) -> list[Judgement]:
    """Judgements from lines ``query passage relevance`` under a header or without one, or TREC's four columns.

    A judgement that is repeated counts once.

    Args:
        lines: of the file.
        source: its name, for messages.

    Raises:
        DataFormatError: for lines that are neither, that contradict one another, or no judgement at all.
    """
    judgements: dict[tuple[str, str], Judgement] = {}
    problems: list[str] = []
    first = True
    for number, line in enumerate(lines, 1):
        columns = line.strip("\r\n").split("\t") if "\t" in line else line.split()
        if not columns:
            continue
        is_header, first = first and _is_header(columns), False
        if is_header:
            continue
        found = _judgement(columns, f"{source}:{number}")
        if isinstance(found, str):
            problems.append(found)
            continue
        before = judgements.setdefault((found.query, found.passage), found)
        if before.relevance != found.relevance:
            problems.append(
                f"{found.where}: field 'score': {found.relevance} for query '{found.query:.80}' and passage"
                f" '{found.passage:.80}', which {before.where} judged {before.relevance}"
            )
    if problems or not judgements:
        raise DataFormatError(problems or [f"{source}:1: empty: at least one judgement is needed"])
    return list(judgements.values())


def _judgement(columns: list[str], where: str) -> Judgement | str:
    """What a line says, or what is wrong with it."""
    if len(columns) == 4:
        columns = [columns[0], *columns[2:]]  # without TREC's iteration number
    if len(columns) != 3:
        return f"{where}: {len(columns)} columns; a judgement has query, passage and relevance"
    query, passage, score = columns
    if not _is_integer(score):
        return f"{where}: field 'score': must be an integer, not {score!r:.40}"
    if len(score.strip().lstrip("+-0")) > DIGITS:
        return f"{where}: field 'score': must have {DIGITS} digits at most"
    return Judgement(query, passage, int(score), where)


def _is_header(columns: list[str]) -> bool:
    names = [column.strip().lstrip("#").strip().lower() for column in columns]
    return not _is_integer(columns[-1]) and (names[0] in QUERY_NAMES or names[-1] in SCORE_NAMES)


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", text.strip()) is not None


def collect_qrels(
    judgements: Iterable[Judgement],
    queries: Collection[str],
    passages: Collection[str],
    missing_passages: bool = False,
    field: str = "corpus-id",
) -> tuple[dict[str, dict[str, int]], int]:
    """The judgements by query, and how many of them name a passage that is not in the collection.

    Args:
        judgements: of one file.
        queries: the ids that exist.
        passages: the ids that exist.
        missing_passages: keep judgements of passages that do not exist (nothing can find them) instead of refusing.
        field: that names passages, for messages.

    Raises:
        DataFormatError: for unknown ids, with the line of each.
    """
    qrels: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    lost = 0
    for query, passage, relevance, where in judgements:
        qrels.setdefault(query, {})[passage] = relevance
        if query not in queries:
            problems.append(f"{where}: field 'query-id': '{query:.80}' is not among the queries")
        if passage not in passages:
            lost += 1
            if not missing_passages:
                problems.append(f"{where}: field '{field}': '{passage:.80}' is not in the corpus")
    if problems:
        raise DataFormatError(problems)
    return qrels, lost
