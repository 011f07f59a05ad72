"""Training pairs as tokens: from records to contrastive batches, whose documents know which of them are the same.

Knows records, tokenizers and negatives. It does not know which pairs share a batch (lm/siblings.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lm.batches import ContrastiveBatch
from lm.texts import tokenise
from losses.contrastive import NO_DOCUMENT
from text.errors import UserError
from text.records import Located, PairRecord, PassageRecord
from text.retrieval import Passage, Query, TextFormat


class PairTable:
    """Pairs, tokenised once; equal passages are one.

    Args:
        pairs: the records.
        tokenizer: of the encoder.
        format: how queries and passages become texts.
        num_negatives: hard negatives of each query: first those of its instruction, then mined ones by chance.

    Raises:
        UserError: if a pair has fewer negatives, or only some pairs have a teacher's scores.
    """

    def __init__(
        self,
        pairs: Sequence[Located[PairRecord]],
        tokenizer: PreTrainedTokenizerBase,
        format: TextFormat,
        num_negatives: int = 0,
    ):
        self.num_negatives = num_negatives
        self._passages: dict[int, Passage] = {}
        asked = [Query(p.name, p.record.query, p.record.instruction, "", "") for p in pairs]
        texts = [format.of_query(query) for query in asked]
        self._positive = [self._key(p.record.positive) for p in pairs]
        self._instruction_negatives = [[self._key(n) for n in p.record.instruction_negatives] for p in pairs]
        self._mined = [[self._key(n) for n in p.record.negatives] for p in pairs]
        # A shared query text excludes nothing: siblings' passages are the negatives that teach instructions.
        answers = [[p.record.positive, *p.record.further_positives] for p in pairs]
        distinct = [list(dict.fromkeys(map(self._key, passages))) for passages in answers]
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
        self.queries = tokenise(texts, tokenizer, format.query_max_length, format.append_eos)
        self.passages = tokenise(
            [format.of_passage(p) for p in self._passages.values()],
            tokenizer,
            format.passage_max_length,
            format.append_eos,
        )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._positive)

    def _key(self, passage: str | PassageRecord) -> int:
        found = (
            Passage("", "", passage) if isinstance(passage, str) else Passage(passage.id, passage.title, passage.text)
        )
        name = found.id or f"\0{found.title}\0{found.text}"
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
        self._passages.setdefault(key or 1, found)
        return key or 1

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
            teacher = torch.tensor(scores)
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


def _teacher(pairs: Sequence[Located[PairRecord]]) -> list[list[float]] | None:
    """Scores of each pair's positive and negatives; None if no pair has any."""
    scored = [p for p in pairs if p.record.positive_score is not None and p.record.negative_scores is not None]
    if not scored:
        return None
    if len(scored) < len(pairs):
        lacking = next((p for p in pairs if p not in scored), pairs[0])
        raise UserError(
            f"{lacking.where}: field 'positive_score' or 'negative_scores': missing here and given elsewhere"
        )
    return [[p.record.positive_score or 0.0, *(p.record.negative_scores or [])] for p in scored]
