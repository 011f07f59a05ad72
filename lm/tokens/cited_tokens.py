"""Answers that cite, as tokens: questions, segments and passages, with control tokens of their own in between.

    question ... free text [Ret] title :: passage [Cs] what follows from it [Ce] free text ... end

Control tokens are the template's alone: in the words of records they are refused (datamodules/cited.py). This file
knows tokens and their places. It does not know what is learnt from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from transformers import AddedToken, PreTrainedTokenizerBase

from lm.forests.forest import Path
from lm.tokens.control_tokens import ControlTokens
from text.citing.cited_records import Segment
from text.errors import UserError


@dataclass(frozen=True)
class CitingTokens:
    """The texts of the control tokens. Those that a tokenizer lacks are added to it, in this order.

    The official order is pad, begin, end, retrieve (arXiv 2403.09024, the published tokenizers). Where a model has
    tokens that it never met (``<|reserved_0|>``), these need no new rows.

    Args:
        begin: opens what follows from a passage.
        end: closes it.
        retrieve: looks a passage up.
        embed: ends a passage that is embedded; null takes the state at its last own token.
    """

    begin: str = "[Cs]"
    end: str = "[Ce]"
    retrieve: str = "[Ret]"
    embed: str | None = "[Emb]"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if len(set(self.texts)) < len(self.texts) or not all(text and text.strip() == text for text in self.texts):
            raise UserError(f"data.tokens: {', '.join(map(repr, self.texts))}: they must be different, without spaces")

    @property
    def texts(self) -> list[str]:
        """Those that there are."""
        return [self.begin, self.end, self.retrieve, *([] if self.embed is None else [self.embed])]

    def add_to(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Make them tokens of a tokenizer; returns those that it did not have."""
        known = tokenizer.get_vocab()
        missing = [text for text in self.texts if text not in known]
        tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in missing])  # type: ignore[arg-type]
        return missing

    def found_in(self, text: str) -> str | None:
        """The first of them that stands in a text; None if there is none."""
        return next((token for token in self.texts if token in text), None)


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer makes of texts and control tokens.

    Args:
        tokenizer: that has the tokens.
        tokens: their texts.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: CitingTokens

    def id(self, text: str) -> int:
        """Of a control token."""
        return int(self.tokenizer.convert_tokens_to_ids(text))  # type: ignore[arg-type]

    @cached_property
    def begin(self) -> int:
        """Id of the token that opens a citation."""
        return self.id(self.tokens.begin)

    @cached_property
    def end(self) -> int:
        """Id of the token that closes it."""
        return self.id(self.tokens.end)

    @cached_property
    def retrieve(self) -> int:
        """Id of the token that looks a passage up."""
        return self.id(self.tokens.retrieve)

    @cached_property
    def embed(self) -> list[int]:
        """Id of the token that ends an embedded passage, if there is one."""
        return [] if self.tokens.embed is None else [self.id(self.tokens.embed)]

    @cached_property
    def first(self) -> list[int]:
        """What the tokenizer puts before every text by itself."""
        found = self.tokenizer("a")["input_ids"][:1]
        return found if found == [self.tokenizer.bos_token_id] else []

    def words(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that are nothing but words."""
        return ControlTokens.special(self.tokenizer).words(texts)

    def text(self, ids: Sequence[int]) -> str:
        """The words of tokens."""
        kept = [id for id in ids if id not in (self.begin, self.end, self.retrieve, *self.embed)]
        return self.tokenizer.decode(kept, skip_special_tokens=True)  # type: ignore[return-value]

    def embedded(self, passage: Sequence[int]) -> list[int]:
        """The tokens by which a passage is embedded: the state at the last one stands for it."""
        return [*self.first, *passage, *self.embed]


class Cite(NamedTuple):
    """A citation in a row.

    Args:
        at: place of the token that looks the passage up.
        begin: place of the token that opens what follows from it.
        passage: number of the passage.
    """

    at: int
    begin: int
    passage: int


class CitedRow(NamedTuple):
    """A question with its answer.

    Args:
        tokens: int32 [n].
        prompt: how many of them are the question.
        cites: citations in order.
    """

    tokens: np.ndarray
    prompt: int
    cites: tuple[Cite, ...]

    def paths(self, ntp: bool = True, passages: bool = True, states: bool = True) -> list[Path]:
        """What is asked of it: scored tokens of the answer, and the state at each token that looks a passage up.

        There is a path up to every look-up and one for the whole row; each scores what the one before did not.

        Args:
            ntp: whether tokens are scored.
            passages: whether those of passages are, too.
            states: whether states are wanted.
        """
        found, scored = [], self.prompt
        for cite in self.cites if states or not passages else ():
            tokens = self.tokens[: cite.at + 1]
            found.append(_path(tokens, scored if ntp else len(tokens), states))
            scored = cite.at + 1 if passages else cite.begin + 1
        return [*found, _path(self.tokens, scored, False)] if ntp else found


def _path(tokens: np.ndarray, scored_from: int, state: bool) -> Path:
    return Path(tokens, scored_from, state)  # type: ignore[arg-type]  # as good as a sequence of numbers


class Part(NamedTuple):
    """A segment as tokens: of its words, and of the passage that it cites, by number."""

    words: list[int]
    passage: int | None = None


def cited_row(
    prompt: Sequence[int], parts: Sequence[Part], passages: Sequence[Sequence[int]], by: Vocabulary, most: int | None
) -> tuple[CitedRow, int]:
    """A row of at most so many tokens: last segments are left out as a whole, never half of a citation.

    Args:
        prompt: tokens of the question.
        parts: of the answer.
        passages: tokens of all passages.
        by: makes control tokens.
        most: tokens of the row; None for any number.

    Returns: the row, and how many segments had no room. The end token stands only behind a whole answer.
    """
    tokens, cites = [*prompt], list[Cite]()
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        shown = [] if part.passage is None else [by.retrieve, *passages[part.passage], by.begin]
        new = [*shown, *part.words, *([] if part.passage is None else [by.end])]
        new += [by.tokenizer.eos_token_id] if last else []
        if most is not None and len(tokens) + len(new) > most:
            return _row(tokens, len(prompt), cites), len(parts) - number
        if part.passage is not None:
            cites.append(Cite(len(tokens), len(tokens) + len(shown) - 1, part.passage))
        tokens += new
    return _row(tokens, len(prompt), cites), 0


def _row(tokens: Sequence[int], prompt: int, cites: Sequence[Cite]) -> CitedRow:
    return CitedRow(np.asarray(tokens, np.int32), prompt, tuple(cites))


def parts_of(segments: Sequence[Segment], words: Sequence[list[int]], number_of: dict[str, int]) -> list[Part]:
    """Segments as tokens.

    Args:
        segments: of a record.
        words: their tokens.
        number_of: passages by id.
    """
    numbers = [None if s.retrieve is None else number_of[s.retrieve] for s in segments]
    return [Part(ids, number) for ids, number in zip(words, numbers, strict=True)]
