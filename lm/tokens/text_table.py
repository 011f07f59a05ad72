"""From texts to padded batches for encoders: tokenised once, every distinct text once, sorted into batches of few pads.

Knows tokenizers and lengths. It does not know what a text is for (text/retrieval/tasks.py), nor what encodes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lm.forests.batches import TextBatch
from lm.forests.length_batches import length_batches
from text.errors import UserError
from text.excerpts import shorten
from text.retrieval.tasks import Text

TOGETHER = 1000  # texts tokenised at once


@dataclass(frozen=True)
class TokenTable:
    """The tokens of many texts, one after the other.

    Args:
        ids: of all texts, int32 [T].
        starts: where each text begins, and the end of the last, int64 [n + 1].
        content_from: first token of each text that is the query or passage itself, not a prefix; int32 [n]. The
            text's length where truncation left nothing of it.
        pad_id: fills short rows.
    """

    ids: np.ndarray
    starts: np.ndarray
    content_from: np.ndarray
    pad_id: int

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.content_from)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text [n]."""
        return np.diff(self.starts)

    def row(self, number: int) -> np.ndarray:
        """The ids of one text."""
        return self.ids[self.starts[number] : self.starts[number + 1]]

    def batch(self, rows: Sequence[int]) -> TextBatch:
        """These texts as one padded batch, padding on the right."""
        length = int(self.lengths[list(rows)].max())
        ids = np.full((len(rows), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for place, number in enumerate(rows):
            own = self.row(number)
            ids[place, : len(own)] = own
            mask[place, : len(own)] = 1
        content = torch.from_numpy(self.content_from[list(rows)].astype(np.int64))
        return TextBatch(torch.from_numpy(ids), torch.from_numpy(mask), content, torch.as_tensor(rows))

    def digests(self) -> np.ndarray:
        """What tells one text from another for an encoder, uint8 [n, 16]: its tokens, and where its content begins."""
        digests = (
            hashlib.blake2b(self.row(i).tobytes() + self.content_from[i].tobytes(), digest_size=16).digest()
            for i in range(len(self))
        )
        return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(self), 16)


def tokenise(
    texts: Sequence[Text],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | Sequence[int],
    append_eos: bool = False,
    content_only: bool = False,
) -> TokenTable:
    """Tokenise texts, special tokens included.

    Args:
        texts: to encode.
        tokenizer: a fast one, since content is found by its characters.
        max_length: tokens kept of a text, special ones included; one number, or one for each text.
        append_eos: close each text with the end-of-text token, where the tokenizer does not do so by itself (models
            that are pooled at their last token were trained on it).
        content_only: the encoder pools the tokens of the content alone, so that some must be left.

    Raises:
        UserError: if the tokenizer has no end-of-text token to append, or nothing of a text is left to read.
    """
    if append_eos and tokenizer.eos_token_id is None:
        raise UserError("append_eos: the tokenizer has no end-of-text token; name it with 'eos_token'")
    # some tokenizers close texts by themselves, and keep the token when they cut
    closed = not append_eos or tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]
    closing = [] if closed else [tokenizer.eos_token_id]
    limits = [max_length] * len(texts) if isinstance(max_length, int) else max_length
    added = tokenizer.num_special_tokens_to_add() + len(closing)
    if (least := min(limits, default=added + 1)) <= added:
        raise UserError(
            f"a max_length of {least} leaves no token for a text: the tokenizer adds {added} of its own to each. Raise"
            " query_max_length or passage_max_length"
        )
    rows: list[np.ndarray] = []
    content: list[int] = []
    read = _read(texts, tokenizer, [limit - len(closing) for limit in limits])
    for text, limit, (ids, begin) in zip(texts, limits, read, strict=True):
        if not (ids := [*ids, *closing]):
            raise UserError(f"a text has no token: {text.string!r}")
        if content_only and begin is None:
            raise UserError(
                f"no token is left to pool of {shorten(text.string, 400)!r}: its first {limit} tokens do not reach"
                " beyond the prefix. Raise query_max_length or passage_max_length, or pool the prefix too"
            )
        rows.append(np.asarray(ids, dtype=np.int32))
        content.append(len(ids) if begin is None else begin)
    starts = np.cumsum([0, *map(len, rows)])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids_T = np.concatenate(rows) if rows else np.empty(0, np.int32)
    return TokenTable(ids_T, starts, np.asarray(content, dtype=np.int32), pad)


def _read(
    texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, limits: Sequence[int]
) -> Iterator[tuple[list[int], int | None]]:
    """The ids of each text, cut to its limit, and which is the first of its content; None if no token of it is left."""
    for first in range(0, len(texts), TOGETHER):
        part = texts[first : first + TOGETHER]
        found = tokenizer([text.string for text in part], verbose=False)
        for place, (text, limit) in enumerate(zip(part, limits[first : first + TOGETHER], strict=True)):
            if len(ids := found["input_ids"][place]) <= limit:
                yield ids, _content_token(found, place, text)
            else:
                cut = tokenizer(text.string, truncation=True, max_length=limit)
                yield cut["input_ids"], _content_token(cut, 0, text)


def _content_token(found, place: int, text: Text) -> int | None:
    """The first token that holds a character of the content; a prefix leaves out all before it, markers included."""
    if text.content_from == 0:
        return 0
    tokens = (found.char_to_token(place, character) for character in range(text.content_from, len(text.string)))
    return next((token for token in tokens if token is not None), None)


@dataclass(frozen=True)
class TextLoader:
    """Batches of a table, made when they are asked for.

    Args:
        table: the texts.
        batches: numbers of texts by batch.
    """

    table: TokenTable
    batches: Sequence[Sequence[int]]

    @classmethod
    def share(cls, table: TokenTable, max_tokens: int, rank: int = 0, ranks: int = 1) -> TextLoader:
        """A rank's share of all texts, in as many batches on every rank: sharded encoders keep step.

        Args:
            table: the texts.
            max_tokens: of a batch, padding included.
            rank: whose share.
            ranks: how many there are.
        """
        batches = length_batches(table.lengths, max_tokens)
        own, most = batches[rank::ranks], -(-len(batches) // ranks)
        return cls(table, own + (own or batches)[-1:] * (most - len(own)))

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[TextBatch]:
        """The batches in order."""
        return (self.table.batch(rows) for rows in self.batches)
