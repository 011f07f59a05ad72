"""All answers of a split as tokens, and batches of some of them with the passages that they cite.

Knows tokens, passages by number, and which of them a batch compares. It does not know what is made of the states.

Legend: M look-ups of a batch, U its different passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lm.forests.cited_batch import CitedBatch
from lm.forests.forest import Forest, Path
from lm.tokens.cited_tokens import CitedRow, Vocabulary, cited_row, parts_of
from losses.contrastive import NO_DOCUMENT
from text.citing.cited_records import CitedAnswer
from text.errors import DataFormatError
from text.records import Located


@dataclass(frozen=True)
class PassageTokens:
    """The tokens of the passages of a corpus.

    Args:
        ids: of each, as they stand in an answer.
        by: makes control tokens.
    """

    ids: list[list[int]]
    by: Vocabulary

    def path(self, number: int) -> Path:
        """A passage as it is embedded, wanted is its last state."""
        tokens = self.by.embedded(self.ids[number])
        return Path(tokens, len(tokens), state=True)


@dataclass(frozen=True)
class Reading:
    """What a method reads of answers that cite.

    Args:
        ntp: their tokens are scored.
        passages_scored: those of passages are, too.
        nsp: states of look-ups and passages are wanted.
        among: passages are paths of the same forest as answers, for one model reads both.
        chunk: tokens of passages that are read at a time; None reads those of a batch at once.
        kept: passages were read before the first batch, which needs no forests of them.
    """

    ntp: bool = True
    passages_scored: bool = True
    nsp: bool = True
    among: bool = False
    chunk: int | None = None
    kept: bool = False

    @property
    def apart(self) -> bool:
        """Whether a batch has forests of its passages."""
        return self.nsp and not self.among and not self.kept


@dataclass
class CitedTable:
    """The answers of a split.

    Args:
        ids: of the records.
        rows: their tokens.
        negatives: numbers of the hard negatives of each.
        groups: label of each.
        passages: of the corpus.
        left_out: what is not there, in words, and how much of it.
    """

    ids: list[str]
    rows: list[CitedRow]
    negatives: list[list[int]]
    groups: list[str]
    passages: PassageTokens
    left_out: Counter[str]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.rows)

    def compared(self, hard: int) -> set[int]:
        """Numbers of the passages that batches may compare.

        Args:
            hard: hard negatives of each record; with 0 only passages that are cited.
        """
        return {cite.passage for row in self.rows for cite in row.cites}.union(*(self.negatives if hard else ()))

    def batch(self, rows: Sequence[int], reading: Reading | None, hard: int, seed: Sequence[int]) -> CitedBatch:
        """These answers.

        Args:
            rows: their numbers.
            reading: what is read of them.
            hard: hard negatives of each record.
            seed: decides, with the number of a record, which these are.
        """
        reading = reading or Reading()
        paths, trees, labels, positives = list[Path](), list[tuple[str, int]](), list[int](), list[list[int]]()
        numbers: dict[int, int] = {}  # of passages, and their places in the batch
        for row in rows:
            own = self.rows[row].paths(reading.ntp, reading.passages_scored, reading.nsp)
            paths += own
            trees += [("answer", row)] * len(own)
            cited = [cite.passage for cite in self.rows[row].cites] if reading.nsp else []
            labels += [numbers.setdefault(number, len(numbers)) for number in cited]
            positives += [[*dict.fromkeys(number + 1 for number in cited)]] * len(cited)
        for row in rows if reading.nsp else ():
            drawn = np.random.default_rng((*seed, row)).permutation(len(self.negatives[row]))[:hard]
            for place in drawn.tolist():
                numbers.setdefault(self.negatives[row][place], len(numbers))
        known = [*numbers]
        if reading.among:
            paths += map(self.passages.path, known)
            trees += [("passage", number) for number in known]
        most = max(map(len, positives), default=0)
        padded = [keys + [NO_DOCUMENT] * (most - len(keys)) for keys in positives]
        return CitedBatch(
            Forest.from_paths(paths, trees),
            self._forests(known, reading.chunk) if reading.apart else (),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(known, dtype=torch.int64) + 1,
            torch.tensor(padded, dtype=torch.int64).view(len(labels), most),
            [self.ids[row] for row in rows],
        )

    def _forests(self, numbers: Sequence[int], chunk: int | None) -> tuple[Forest, ...]:
        """Passages in their order, in one forest or in several of so many tokens; at least one, if an empty one."""
        paths = [self.passages.path(number) for number in numbers]
        lengths = np.cumsum([0, *(len(path.tokens) for path in paths)])
        parts = [[*range(len(paths))]] if chunk is None else _cut(lengths, chunk)
        return tuple(Forest.from_paths([paths[n] for n in part], part) for part in parts)


def _cut(ends: np.ndarray, most: int) -> list[list[int]]:
    """Places by part, in order, of at most so many tokens each; a longer one is a part by itself."""
    parts: list[list[int]] = [[]]
    first = 0
    for place in range(len(ends) - 1):
        if parts[-1] and ends[place + 1] - first > most:
            parts.append([])
            first = ends[place]
        parts[-1].append(place)
    return parts


def read_rows(
    records: Sequence[Located[CitedAnswer]],
    prompts: Sequence[list[int]],
    passages: PassageTokens,
    number_of: dict[str, int],
    most: int | None,
) -> CitedTable:
    """The table of some records.

    Args:
        records: whose passages are all there.
        prompts: tokens of their questions.
        passages: of the corpus.
        number_of: passages by id.
        most: tokens of an answer with its question.

    Raises:
        DataFormatError: for questions that leave no room for an answer.
    """
    words = iter(passages.by.words([segment.text for found in records for segment in found.record.segments]))
    table = CitedTable([], [], [], [], passages, Counter())
    problems = []
    for found, prompt in zip(records, prompts, strict=True):
        record = found.record
        parts = parts_of(record.segments, [next(words) for _ in record.segments], number_of)
        if most is not None and len(prompt) >= most:
            told = f"{len(prompt)} tokens leave no room for an answer: data.max_length or the context is {most}"
            problems.append(f"{found.where}: field 'question': {told}; shorten it, or raise data.max_length")
            continue
        row, dropped = cited_row(prompt, parts, passages.ids, passages.by, most)
        table.left_out["last segments have no room (truncated)"] += dropped
        if len(row.tokens) == len(prompt):
            table.left_out["answers of which no segment has room are left out"] += 1
            continue
        table.ids.append(record.id)
        table.rows.append(row)
        table.negatives.append([number_of[id] for id in record.hard_negatives])
        table.groups.append(record.group_id or f"\0{found.row}")
    if problems:
        raise DataFormatError(problems)
    return table
