"""From prompts and answers to tables of tokens: rendered, tokenised some thousand at a time, and cut to size.

Knows renderers and limits. It does not know where records come from, nor which of them share a batch.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from lm.tokens.answer_table import AnswerTable, Example, Limits
from lm.tokens.chat import ChatRenderer, Rendered
from lm.tokens.control_tokens import is_marked
from lm.tokens.token_cache import kept_lists
from lm.tokens.token_lists import TokenLists
from text.errors import DataFormatError

__all__ = ["TOGETHER", "AnswerTable", "Example", "Limits", "TableMaker"]

TOGETHER = 1000  # records tokenised at once

T = TypeVar("T", bound=AnswerTable)


class TableMaker:
    """Makes a table of examples, some thousand at a time.

    Args:
        renderer: of prompts and answers.
        limits: what is cut or left out.
        tokenizer_sha256: hash of the renderer's tokenizer: what it tokenises is kept in the cache; None keeps nothing.
        refuse: why the examples of one record are left out, by their answers as they were cut; None keeps them.
        context: the most tokens that the model reads; None for any number.

    Attributes:
        given: how many examples there were.
        left_out: how many of them the table will not have because they are too long, by reason.
        refused: how many records it will not have because of `refuse`, by reason.
        cut_prompts: how many prompts have lost their beginning.
        spelt: how many prompts and answers hold control tokens as words.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        limits: Limits,
        tokenizer_sha256: str | None = None,
        refuse: Callable[[Sequence[Example], list[list[list[int]]]], str | None] = lambda examples, answers: None,
        context: int | None = None,
    ):
        self.context = context
        self.renderer, self.limits, self.tokenizer_sha256, self.refuse = renderer, limits, tokenizer_sha256, refuse
        self.left_out: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.given = self.cut_prompts = self.spelt = 0
        self._waiting: list[tuple[Example, str, list[str]]] = []  # with the texts of its prompt and answers
        self._ends: list[int] = []  # of the examples of each record among these
        self._known: dict[bytes, int | str] = {}  # digest of a prompt's text -> its number, or why it is left out
        self._shorter: dict[tuple[int, int], int] = {}  # number of a prompt, length -> number of the same, cut to it
        self._prompts, self._answers = TokenLists(), TokenLists()
        self._ids: list[str] = []
        self._prompt_of, self._groups, self._trees, self._cut = array("q"), array("q"), array("q"), array("b")
        self._units, self._unit_labels = array("q"), dict[Hashable, int]()
        self._group_labels: dict[Hashable, int] = {}
        self._tree_labels: dict[Hashable, int] = {}
        self._numbers: list[tuple[float, ...]] = []

    def add(self, *examples: Example) -> None:
        """Add the examples of a record.

        Raises:
            UserError: if the chat template refuses a prompt.
            DataFormatError: if `refuse` says so, or the model cannot read what is kept.
        """
        rendered = []
        for example in examples:
            asked = example.prompt, example.system, example.inputs
            text = f"\0{example.question}" if example.question else self.renderer.prompt_text(*asked)
            rendered.append((example, text, [self.renderer.written(answer, *asked) for answer in example.answers]))
        self.given += len(rendered)
        self._waiting += rendered
        self._ends.append(len(self._waiting))
        if len(self._waiting) >= TOGETHER:
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
            units=np.array(self._units),
            trees=np.array(self._trees),
            cut=np.array(self._cut, bool),
            numbers=np.array(self._numbers, np.float64),
            eos=self.renderer.end,
        )

    def _tokenise(self) -> None:
        waiting, ends, self._waiting, self._ends = self._waiting, self._ends, [], []
        prompts = self._numbered([(example, text) for example, text, _ in waiting])
        texts = [text for _, _, answers in waiting for text in answers]
        closed = [end for example, _, _ in waiting for end in example.append_eos]
        self.spelt += sum(self.renderer.is_spelt(text) for text in texts)
        made = iter(self._encoded(self.renderer.encode_answers, texts, closed))
        problems: list[str] = []
        for begin, end in pairwise([0, *ends]):
            examples = [example for example, _, _ in waiting[begin:end]]
            rows = [
                self._fit(example, prompts[begin + n], self._own(example, made)) for n, example in enumerate(examples)
            ]
            kept = [(example, row) for example, row in zip(examples, rows, strict=True) if not isinstance(row, str)]
            self.left_out.update(row for row in rows if isinstance(row, str))
            try:
                if kept and (reason := self.refuse([e for e, _ in kept], [row.answers for _, row in kept])) is not None:
                    self.refused[reason] += 1
                    continue
            except DataFormatError as error:
                problems += error.problems
            for example, row in kept:
                problems += self._beyond(example, row)
                self._keep(example, row)
        if problems:
            raise DataFormatError(problems)

    def _numbered(self, asked: list[tuple[Example, str]]) -> list[int | str]:
        """The number of each prompt, or why it is left out; every distinct one is tokenised once."""
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for _, text in asked]
        fresh = {digest: pair for digest, pair in zip(digests, asked, strict=True) if digest not in self._known}
        texts = [Rendered() if example.question else text for example, text in fresh.values()]
        self.spelt += sum(map(is_marked, texts))
        encoded = self._encoded(self.renderer.encode_prompts, texts)
        for (digest, (example, _)), ids in zip(fresh.items(), encoded, strict=True):
            self._known[digest] = self._fit_prompt(example.question or ids, example)
        return [self._known[digest] for digest in digests]

    def _own(self, example: Example, made: Iterator[list[int]]) -> list[list[int]]:
        """The tokens of an example's answers: those it brought, or the next that were made."""
        told = zip(example.tokens[1:] or [[]] * len(example.answers), example.append_eos, strict=True)
        found = [(next(made), ids and self.renderer.ended(ids, end)) for ids, end in told]
        return [brought or ids for ids, brought in found]

    def _encoded(self, encode: Callable[..., list[list[int]]], texts: list[str], *more: list[bool]) -> list[list[int]]:
        """The tokens of prompts or answers, tokenised once for all runs."""
        if self.tokenizer_sha256 is None or not texts:
            return encode(texts, *more)
        kinds = [isinstance(text, Rendered) for text in texts]
        content = json.dumps([self.tokenizer_sha256, self.renderer.reading, encode.__name__, kinds, texts, *more])
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
        if (room := limits.of_answer(len(ids))) is not None and room < 1:
            return "prompts of max_length tokens or more"
        self._prompts.append(ids)
        return len(self._prompts) - 1

    def _kept(self, example: Example) -> int:
        """Tokens at the beginning of a prompt that stay when it is cut."""
        asked = example.prompt, example.system, example.inputs
        return self.renderer.system_length(*asked) if self.limits.keep_system else 0

    def _fit(self, example: Example, prompt: int | str, answers: list[list[int]]) -> _Row | str:
        """The prompt and answers of an example as they are kept, or why they are not."""
        if isinstance(prompt, str):
            return prompt
        most = self.limits.of_answer(self._prompts.length(prompt))
        cut = [most is not None and len(ids) > most for ids in answers]
        if any(cut) and not self.limits.cut:
            return "answers that exceed max_completion_length, or max_length with their prompt"
        answers = [ids[:most] for ids in answers]
        beside = self._beside(max(map(len, answers), default=1), prompt, example)
        return beside if isinstance(beside, str) else _Row(beside, answers, cut)

    def _beyond(self, example: Example, row: _Row) -> list[str]:
        """What is wrong with an example that the model cannot read to its end."""
        length = self._prompts.length(row.prompt) + max(map(len, row.answers), default=1)
        if self.context is None or length <= self.context:
            return []
        told = f"{length:,} tokens with its prompt, and the model reads {self.context:,} at most"
        remedy = f"data.max_length {self.context} leaves out or cuts what is longer"
        return [f"{example.where or example.id}: {told}: {remedy}"]

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

    def _keep(self, example: Example, row: _Row) -> None:
        for ids in row.answers:
            self._answers.append(ids)
        self._cut.extend(row.cut)
        group, tree = (row.prompt if label is None else label for label in (example.group, example.tree))
        self._ids.append(example.id)
        self._prompt_of.append(row.prompt)
        self._groups.append(self._group_labels.setdefault(group, len(self._group_labels)))
        unit = len(self._units) if example.unit is None else example.unit
        self._units.append(self._unit_labels.setdefault(unit, len(self._unit_labels)))
        self._trees.append(self._tree_labels.setdefault(tree, len(self._tree_labels)))
        self._numbers.append(example.numbers)


class _Row(NamedTuple):
    """An example as it is kept: the number of its prompt, the tokens of its answers, and which of these are cut."""

    prompt: int
    answers: list[list[int]]
    cut: list[bool]
