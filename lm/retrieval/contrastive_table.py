"""Training pairs as tokens: from records to contrastive batches, whose documents know which of them are the same.

Knows records, tokenizers and negatives. It does not know which pairs share a batch (lm/retrieval/contrastive_order.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lm.forests.batches import ContrastiveBatch
from lm.tokens.text_table import tokenise
from losses.contrastive import NO_DOCUMENT
from text.errors import DataFormatError, UserError
from text.records import Located
from text.retrieval.retrieval_records import GivenPassage, PairRecord
from text.retrieval.tasks import Passage, Query, TextFormat


class ContrastiveTable:
    """Pairs, tokenised once; passages of one id, or of one text where they have none, are one.

    Args:
        pairs: the records.
        tokenizer: of the encoder.
        format: how queries and passages become texts.
        num_negatives: hard negatives of each query: first those of its instruction, then mined ones by chance.
        content_only: see `tokenise`.

    Raises:
        UserError: if a pair has fewer negatives, some pairs alone have a teacher's scores, or an id stands for two
            texts.
    """

    def __init__(
        self,
        pairs: Sequence[Located[PairRecord]],
        tokenizer: PreTrainedTokenizerBase,
        format: TextFormat,
        num_negatives: int = 0,
        content_only: bool = False,
    ):
        self.num_negatives = num_negatives
        self._passages = _collected(pairs)
        asked = [Query(p.name, p.record.query, p.record.instruction, "", "") for p in pairs]
        texts = [format.of_query(query) for query in asked]
        self._positive = [_key(p.record.positive) for p in pairs]
        self._instruction_negatives = [[_key(n) for n in p.record.instruction_negatives] for p in pairs]
        self._mined = [[_key(n) for n in p.record.negatives] for p in pairs]
        # A shared query text excludes nothing: siblings' passages are the negatives that teach instructions.
        answers = [[p.record.positive, *p.record.further_positives] for p in pairs]
        distinct = [list(dict.fromkeys(map(_key, passages))) for passages in answers]
        most = max(map(len, distinct))  # as wide on every rank: rows are gathered
        self._known = [keys + [NO_DOCUMENT] * (most - len(keys)) for keys in distinct]
        self._teacher = _teacher(pairs)
        for pair, special, mined in zip(pairs, self._instruction_negatives, self._mined, strict=True):
            if len(special) + len(mined) < num_negatives:
                raise UserError(
                    f"{pair.where}: field 'negatives': {len(special) + len(mined)} of them, and num_negatives is "
                    f"{num_negatives}"
                )
        self._row = {key: row for row, key in enumerate(self._passages)}
        self.queries = tokenise(texts, tokenizer, format.query_max_length, format.append_eos, content_only)
        self.passages = tokenise(
            [format.of_passage(p) for p in self._passages.values()],
            tokenizer,
            format.passage_max_length,
            format.append_eos,
            content_only,
        )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._positive)

    def batch(self, numbers: Sequence[int], seed: Sequence[int]) -> ContrastiveBatch:
        """These pairs.

        Args:
            numbers: of the pairs.
            seed: decides, with the number of a pair, which of its mined negatives it brings.
        """
        chosen = [self._negatives(number, seed) for number in numbers]
        keys = [self._positive[n] for n in numbers] + [key for of_pair, _ in chosen for key in of_pair]
        teacher = None
        if self._teacher is not None:
            scores = [
                [self._teacher[n][0], *(self._teacher[n][1 + place] for place in places)]
                for n, (_, places) in zip(numbers, chosen, strict=True)
            ]
            teacher = torch.tensor(scores, dtype=torch.float32)
        return ContrastiveBatch(
            self.queries.batch(list(numbers)),
            self.passages.batch([self._row[key] for key in keys]),
            torch.tensor(keys),
            torch.tensor([self._known[n] for n in numbers]),
            teacher,
        )

    def _negatives(self, number: int, seed: Sequence[int]) -> tuple[list[int], list[int]]:
        """Keys of the chosen negatives of a pair, and their places among all of its negatives."""
        special, mined = self._instruction_negatives[number], self._mined[number]
        first = min(len(special), self.num_negatives)
        rng = np.random.default_rng((*seed, number))
        places = [*range(first), *(len(special) + rng.permutation(len(mined))[: self.num_negatives - first]).tolist()]
        return [[*special, *mined][place] for place in places], places


def _passage(given: str | GivenPassage) -> Passage:
    return Passage("", "", given) if isinstance(given, str) else given.passage


def _key(given: str | GivenPassage) -> int:
    """What tells passages apart, never 0: their id, or what they say."""
    passage = _passage(given)
    name = passage.id or f"\0{passage.title}\0{passage.text}"
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
    return key or 1


def _collected(pairs: Sequence[Located[PairRecord]]) -> dict[int, Passage]:
    """Every passage once, by its key.

    Raises:
        DataFormatError: where an id comes again with another text: one of the two would never be read.
    """
    found: dict[int, tuple[Passage, str]] = {}
    problems: list[str] = []
    for pair in pairs:
        fields = {
            "positive": [pair.record.positive],
            "further_positives": pair.record.further_positives,
            "instruction_negatives": pair.record.instruction_negatives,
            "negatives": pair.record.negatives,
        }
        for field, given in ((field, given) for field, passages in fields.items() for given in passages):
            passage = _passage(given)
            first, where = found.setdefault(_key(given), (passage, pair.where))
            if first != passage:
                problems.append(
                    f"{pair.where}: field '{field}': the id '{passage.id:.80}' has another text than at {where}: give"
                    " each text an id of its own, or leave the ids out"
                )
    if problems:
        raise DataFormatError(problems)
    return {key: passage for key, (passage, _) in found.items()}


def _teacher(pairs: Sequence[Located[PairRecord]]) -> list[list[float]] | None:
    """Scores of each pair's positive and negatives; None if no pair has any."""
    given = [(p.record.positive_score, p.record.negative_scores) for p in pairs]
    if all(scores == (None, None) for scores in given):
        return None
    scored: list[list[float]] = []
    for pair, (positive, negatives) in zip(pairs, given, strict=True):
        if positive is None or negatives is None:
            field = "positive_score" if positive is None else "negative_scores"
            raise UserError(f"{pair.where}: field '{field}': missing, where a teacher's scores are given")
        scored.append([positive, *negatives])
    return scored
