"""Relevance judgements: the tab-separated files of BEIR and TREC, checked against the queries and the collection.

This file knows lines and ids. It does not know what a passage says, nor how a judgement is scored (metrics/ranks.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from text.errors import DataFormatError


class Judgement(NamedTuple):
    """One line of a judgement file, and where it stood."""

    query: str
    passage: str
    relevance: int
    where: str


def parse_qrels(lines: Iterable[str], source: str) -> list[Judgement]:
    """Judgements from lines ``query passage relevance`` under a header, or TREC's four columns.

    Args:
        lines: of the file.
        source: its name, for messages.

    Raises:
        DataFormatError: for lines that are neither, or no judgement at all.
    """
    judgements: list[Judgement] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        columns = line.strip("\r\n").split("\t") if "\t" in line else line.split()
        where = f"{source}:{number}"
        if not columns or (number == 1 and not _is_integer(columns[-1])):
            continue
        if len(columns) == 4:
            del columns[1]  # TREC's iteration number
        if len(columns) != 3:
            problems.append(f"{where}: {len(columns)} columns; a judgement has query, passage and relevance")
        elif not _is_integer(columns[2]):
            problems.append(f"{where}: field 'score': must be an integer, not {columns[2]!r}")
        else:
            judgements.append(Judgement(columns[0], columns[1], int(columns[2]), where))
    if problems or not judgements:
        raise DataFormatError(problems or [f"{source}:1: empty: at least one judgement is needed"])
    return judgements


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdigit()


def collect_qrels(
    judgements: Iterable[Judgement], queries: Collection[str], passages: Collection[str], missing_passages: bool = False
) -> tuple[dict[str, dict[str, int]], int]:
    """The judgements by query, and how many of them name a passage that is not in the collection.

    Args:
        judgements: of one file.
        queries: the ids that exist.
        passages: the ids that exist.
        missing_passages: keep judgements of passages that do not exist (nothing can find them) instead of refusing.

    Raises:
        DataFormatError: for unknown ids, with the line of each.
    """
    qrels: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    lost = 0
    for query, passage, relevance, where in judgements:
        qrels.setdefault(query, {})[passage] = relevance
        if query not in queries:
            problems.append(f"{where}: field 'query-id': '{query}' is not among the queries")
        if passage not in passages:
            lost += 1
            if not missing_passages:
                problems.append(f"{where}: field 'corpus-id': '{passage}' is not in the corpus")
    if problems:
        raise DataFormatError(problems)
    return qrels, lost
