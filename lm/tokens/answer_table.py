"""Prompts and their answers as tokens, kept in flat arrays, and how long they may be.

A record has one prompt and as many answers as its kind (one of an instruction, two of a pair); equal prompts are kept
once. Knows token lists and lengths. It does not know how they are made (lm/tokens/answer_tokens.py), nor which share a
batch.

Legend: n records, k answers of each.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lm.forests.answer_forests import Answer
from lm.tokens.token_lists import TokenLists
from text.chat.messages import NO_INPUTS, Message, Prompt, TemplateInputs
from text.errors import UserError


class Example(NamedTuple):
    """A record, as far as tokens go.

    Args:
        id: for messages, and the key of what is computed beforehand.
        prompt: what is answered.
        answers: as many as every record of the table has; one that says more than its content is a message.
        append_eos: whether each of them ends with the end of the turn.
        system: the system message of a prompt that has none.
        group: records of one group stay together; None groups by prompt.
        tree: records of one label share what they have in common; None shares within a prompt.
        numbers: whatever a batch will want to know of the record, as many for every record.
        tokens: of the prompt and of each answer, where they are known: an empty list is made of the text.
        inputs: what else the chat template is given.
        where: the place of the record, for messages.
        unit: examples of one label are met side by side, whether groups are or not; None is one by itself.
    """

    id: str
    prompt: Prompt
    answers: tuple[str | Message, ...]
    append_eos: tuple[bool, ...]
    system: str | None = None
    group: str | None = None
    tree: str | None = None
    numbers: tuple[float, ...] = ()
    tokens: tuple[list[int], ...] = ()
    inputs: TemplateInputs = NO_INPUTS
    where: str = ""
    unit: str | None = None

    @property
    def question(self) -> list[int]:
        """The tokens of the prompt, if they are known."""
        return self.tokens[0] if self.tokens else []


@dataclass(frozen=True)
class Limits:
    """How long prompts and answers may be, in tokens; None is no limit.

    Args:
        max_length: of a prompt and an answer together.
        max_prompt_length: of a prompt.
        max_completion_length: of an answer.
        keep_system: a prompt that is cut keeps its system message.
        cut: first answers lose their end, and with it their end token: they get ``max_completion_length``, or if that
            is None what their prompt leaves of ``max_length``. Then prompts lose their beginning: they get
            ``max_prompt_length``, and what the longer answer leaves. If false, records that are too long are left out.
    """

    max_length: int | None = 1024
    max_prompt_length: int | None = 512
    max_completion_length: int | None = None
    keep_system: bool = True
    cut: bool = True

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        for name, least in (("max_length", 2), ("max_prompt_length", 1), ("max_completion_length", 1)):
            limit = getattr(self, name)
            if limit is not None and (not isinstance(limit, int) or limit < least):
                raise UserError(f"data.{name} is {limit!r}: it must be a whole number of at least {least}, or null")

    def of_answer(self, prompt: int) -> int | None:
        """The most tokens that an answer to a prompt of so many can have; None for any number.

        An answer that has a maximum of its own is given it, and the prompt what is left. Else it is given what the
        prompt leaves.
        """
        beside = 1 if self.cut and self.max_completion_length is not None else prompt
        left = None if self.max_length is None else self.max_length - beside
        given = [limit for limit in (left, self.max_completion_length) if limit is not None]
        return min(given) if given else None


@dataclass
class AnswerTable:
    """The records of a split, tokenised.

    Args:
        ids: of the records [n].
        prompts: every distinct prompt once.
        answers: k of each record in turn.
        prompt_of: number of each record's prompt [n].
        groups: label of each record; records of one group belong together [n].
        units: label of each record; records of one unit are always met side by side [n].
        trees: label of each record; records of one label share what they have in common [n].
        cut: whether an answer has lost its end [n k].
        numbers: what a batch wants to know [n, ...], float64.
        eos: the token that ends answers, if there is one.
    """

    ids: list[str]
    prompts: TokenLists
    answers: TokenLists
    prompt_of: np.ndarray
    groups: np.ndarray
    units: np.ndarray
    trees: np.ndarray
    cut: np.ndarray
    numbers: np.ndarray
    eos: int | None = None

    def __len__(self) -> int:
        """Number of records."""
        return len(self.ids)

    @property
    def width(self) -> int:
        """Answers of a record k."""
        return len(self.answers) // max(len(self), 1)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Tokens of each record that are computed beside its prompt [n], and of the prompt [n]: [2, n]."""
        answers = self.answers.lengths.reshape(len(self), -1).sum(axis=1)
        return np.stack([answers, self.prompts.lengths[self.prompt_of]])

    @cached_property
    def empty(self) -> np.ndarray:
        """Whether some answer of a record has no token at all [n], bool."""
        return (self.answers.lengths == 0).reshape(len(self), -1).any(axis=1)

    def answer(self, row: int, which: int = 0, ended: bool = False) -> Answer:
        """The prompt of a record and one of its answers.

        Args:
            row: number of the record.
            which: of its answers.
            ended: an answer that has lost its end ends with the token for it all the same.
        """
        number = row * self.width + which
        tokens = self.answers[number]
        if ended and self.cut[number] and self.eos is not None:
            tokens = np.append(tokens[:-1], self.eos)
        return self.prompts[self.prompt_of[row]], tokens

    @cached_property
    def content_sha256(self) -> str:
        """Hash of all that a model could tell about the records: their tokens; and of their ids."""
        digest = hashlib.sha256(json.dumps(self.ids).encode())
        for lists in (self.prompts, self.answers):
            digest.update(lists.lengths.tobytes() + lists.ids.tobytes())
        digest.update(self.prompt_of.tobytes())
        return digest.hexdigest()
