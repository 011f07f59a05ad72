"""Prompts and their answers as tokens: rendered, cut to size, and kept in flat arrays.

A record has one prompt and as many answers as its kind (one of an instruction, two of a pair); equal prompts are kept
once. Knows token lists and lengths. It does not know where records come from, nor which of them share a batch.

Legend: n records, k answers of each, T tokens.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from lm.chat import ChatRenderer
from lm.pair_forests import Answer
from lm.token_files import kept_lists
from lm.token_lists import TokenLists
from text.errors import UserError
from text.messages import Prompt

TOGETHER = 1000  # records tokenised at once


class Example(NamedTuple):
    """A record, as far as tokens go.

    Args:
        id: for messages, and the key of what is computed beforehand.
        prompt: what is answered.
        answers: as many as every record of the table has.
        append_eos: whether each of them ends with the end-of-text token.
        system: the system message of a prompt that has none.
        group: records of one group stay together; None groups by prompt.
        tree: records of one label share what they have in common; None shares within a prompt.
        numbers: whatever a batch will want to know of the record, as many for every record.
        tokens: of the prompt and of each answer, where they are known: an empty list is made of the text.
    """

    id: str
    prompt: Prompt
    answers: tuple[str, ...]
    append_eos: tuple[bool, ...]
    system: str | None = None
    group: str | None = None
    tree: str | None = None
    numbers: tuple[float, ...] = ()
    tokens: tuple[list[int], ...] = ()

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
        groups: label of each record; records of one group stay together [n].
        trees: label of each record; records of one label share what they have in common [n].
        cut: whether an answer has lost its end [n k].
        numbers: what a batch wants to know [n, ...], float64.
        eos: the end-of-text token, if there is one.
    """

    ids: list[str]
    prompts: TokenLists
    answers: TokenLists
    prompt_of: np.ndarray
    groups: np.ndarray
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
            ended: an answer that has lost its end ends with the end-of-text token all the same.
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


T = TypeVar("T", bound=AnswerTable)


class TableMaker:
    """Makes a table of examples, some thousand at a time.

    Args:
        renderer: of prompts and answers.
        limits: what is cut or left out.
        tokenizer_sha256: hash of the renderer's tokenizer: what it tokenises is kept in the cache; None keeps nothing.

    Attributes:
        left_out: how many records the table will not have, by reason.
        cut_prompts: how many prompts have lost their beginning.
    """

    def __init__(self, renderer: ChatRenderer, limits: Limits, tokenizer_sha256: str | None = None):
        self.renderer, self.limits, self.tokenizer_sha256 = renderer, limits, tokenizer_sha256
        self.left_out: Counter[str] = Counter()
        self.cut_prompts = 0
        self._waiting: list[tuple[Example, str]] = []
        self._known: dict[bytes, int | str] = {}  # digest of a prompt's text -> its number, or why it is left out
        self._shorter: dict[tuple[int, int], int] = {}  # number of a prompt, length -> number of the same, cut to it
        self._prompts, self._answers = TokenLists(), TokenLists()
        self._ids: list[str] = []
        self._prompt_of, self._groups, self._trees, self._cut = array("q"), array("q"), array("q"), array("b")
        self._group_labels: dict[Hashable, int] = {}
        self._tree_labels: dict[Hashable, int] = {}
        self._numbers: list[tuple[float, ...]] = []

    def add(self, example: Example) -> None:
        """Add an example.

        Raises:
            UserError: if the chat template refuses its prompt.
        """
        if example.question:
            text = f"\0{example.question}"
        else:
            text = self.renderer.prompt_text(example.prompt, example.system)
        self._waiting.append((example, text))
        if len(self._waiting) == TOGETHER:
            self._tokenise()

    def finish(self, kind: type[T]) -> T:
        """The table of all examples that were added and not left out."""
        self._tokenise()
        return kind(
            ids=self._ids,
            prompts=self._prompts,
            answers=self._answers,
            prompt_of=np.array(self._prompt_of),
            groups=np.array(self._groups),
            trees=np.array(self._trees),
            cut=np.array(self._cut, bool),
            numbers=np.array(self._numbers, np.float64),
            eos=self.renderer.tokenizer.eos_token_id,
        )

    def _tokenise(self) -> None:
        waiting, self._waiting = self._waiting, []
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for _, text in waiting]
        fresh = {digest: pair for digest, pair in zip(digests, waiting, strict=True) if digest not in self._known}
        asked = ["" if example.question else text for example, text in fresh.values()]
        encoded = self._encoded(self.renderer.encode_prompts, asked)
        for (digest, (example, _)), ids in zip(fresh.items(), encoded, strict=True):
            self._known[digest] = self._fit_prompt(example.question or ids, example)
        texts = [text for example, _ in waiting for text in example.answers]
        ends = [end for example, _ in waiting for end in example.append_eos]
        answers = iter(self._encoded(self.renderer.encode_answers, texts, ends))
        for (example, _), digest in zip(waiting, digests, strict=True):
            told = zip(example.tokens[1:] or [[]] * len(example.answers), example.append_eos, strict=True)
            own = [(next(answers), ids and self.renderer.ended(ids, end)) for ids, end in told]
            self._fit_answers(example, self._known[digest], [known or made for made, known in own])

    def _encoded(self, encode: Callable[..., list[list[int]]], texts: list[str], *more: list[bool]) -> list[list[int]]:
        """The tokens of prompts or answers, tokenised once for all runs."""
        if self.tokenizer_sha256 is None or not texts:
            return encode(texts, *more)
        content = json.dumps([self.tokenizer_sha256, encode.__name__, texts, *more])
        return kept_lists(hashlib.sha256(content.encode()).hexdigest(), lambda: encode(texts, *more))

    def _fit_prompt(self, ids: list[int], example: Example) -> int | str:
        """The number of a prompt that is cut and kept; or why it is not."""
        limits, most = self.limits, self.limits.max_prompt_length
        if most is not None and len(ids) > most:
            if not limits.cut:
                return "prompts of more than max_prompt_length tokens"
            kept = self._kept(example)
            if kept >= most:
                return "system messages that leave nothing of their prompt"
            ids = [*ids[:kept], *ids[len(ids) - (most - kept) :]]
            self.cut_prompts += 1
        if limits.max_length is not None and len(ids) >= limits.max_length:
            return "prompts of max_length tokens or more"
        self._prompts.append(ids)
        return len(self._prompts) - 1

    def _kept(self, example: Example) -> int:
        """Tokens at the beginning of a prompt that stay when it is cut."""
        return self.renderer.system_length(example.prompt, example.system) if self.limits.keep_system else 0

    def _fit_answers(self, example: Example, prompt: int | str, answers: list[list[int]]) -> None:
        """Keep a record whose prompt was kept, or count why it is not."""
        if isinstance(prompt, int):
            most = self.limits.of_answer(self._prompts.length(prompt))
            cut = [most is not None and len(ids) > most for ids in answers]
            if any(cut) and not self.limits.cut:
                prompt = "answers that exceed max_completion_length, or max_length with their prompt"
            else:
                answers = [ids[:most] for ids in answers]
                prompt = self._beside(max(map(len, answers)), prompt, example)
        if isinstance(prompt, str):
            self.left_out[prompt] += 1
        else:
            self._keep(example, prompt, answers, cut)

    def _beside(self, answer: int, prompt: int, example: Example) -> int | str:
        """The number of a prompt that fits beside an answer of so many tokens: its own, or of what is left of it."""
        if self.limits.max_length is None or (most := self.limits.max_length - answer) >= self._prompts.length(prompt):
            return prompt
        if (prompt, most) not in self._shorter:
            kept = self._kept(example)
            if kept >= most:
                return "system messages that leave nothing of their prompt"
            ids = self._prompts[prompt].tolist()
            self._prompts.append([*ids[:kept], *ids[len(ids) - (most - kept) :]])
            self._shorter[prompt, most] = len(self._prompts) - 1
            self.cut_prompts += 1
        return self._shorter[prompt, most]

    def _keep(self, example: Example, prompt: int, answers: list[list[int]], cut: list[bool]) -> None:
        for ids in answers:
            self._answers.append(ids)
        self._cut.extend(cut)
        group, tree = (prompt if label is None else label for label in (example.group, example.tree))
        self._ids.append(example.id)
        self._prompt_of.append(prompt)
        self._groups.append(self._group_labels.setdefault(group, len(self._group_labels)))
        self._trees.append(self._tree_labels.setdefault(tree, len(self._tree_labels)))
        self._numbers.append(example.numbers)
