"""Rounds: prompts that depend on earlier answers, over a whole set of things at once.

What is done with one thing (a question, a wrong solution) is written as if there were no other: a generator that yields
what it wants to know, is sent the answers in the same order, and returns its result. All of them run together: a thing
goes on as soon as its own answers are there, so that the engine is always given whatever can be written now. This file
knows draws and choices. It does not know what is asked, nor who answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from lm.generation.decoding import Decoding, Draw, Drawing
from lm.steps.gather import merge_over_ranks, ranks
from text.errors import UserError

R = TypeVar("R")


class Choices(NamedTuple):
    """A question that is not answered in words: how likely is each of some continuations of a prompt?

    Args:
        prompt: tokens.
        choices: tokens of each continuation.
    """

    prompt: Sequence[int]
    choices: Sequence[Sequence[int]]


Wanted: TypeAlias = Sequence["Draw | Choices"]
Course: TypeAlias = Generator[Wanted, list[Any], R]
"""Answers are a `Sample` for a draw, and for choices their log-probs, one number each."""

Weigh: TypeAlias = Callable[[Sequence[Choices]], list[list[float]]]


def several(prefix: Sequence[int], seed: int, k: int, decoding: Decoding) -> list[Draw]:
    """``k`` draws from the continuations of a prefix; greedy ones are all the same draw.

    Args:
        prefix: tokens.
        seed: of the prefix.
        k: how many.
        decoding: how they are to be chosen.
    """
    return [Draw(prefix, seed, number if decoding.temperature > 0 else 0) for number in range(k)]


def run_rounds(
    courses: Sequence[Course[R]], engine: Drawing, decoding: Decoding, weigh: Weigh | None = None
) -> list[R]:
    """The result of each course, in their order.

    What several courses want is asked once. Draws are written together, as long as there are some; choices are weighed
    in between, all that wait together. With an engine that is sharded over ranks, each of them has to call this equally
    often, also with no course at all.

    Args:
        courses: what is done with each thing.
        engine: who writes.
        decoding: how tokens are chosen.
        weigh: who tells the log-probs of choices; None where nobody asks.

    Raises:
        UserError: for a prompt without tokens or as long as the model's context, choices that have no room behind
            theirs, or choices where nobody weighs.
    """
    desk = _Desk(courses, engine.context)
    while _anyone(desk.busy, engine.sharded):
        if desk.draws or engine.sharded:
            for place, sample in engine.serve(desk.draws, decoding):
                desk.answer(desk.keys[place], sample)
        desk.draws, desk.keys = [], []
        own, desk.choices = desk.choices, []
        choices = _of_all_ranks(own) if engine.sharded else own
        if choices and weigh is None:
            raise UserError("choices are to be weighed, and nobody was named who does")
        weighed = dict(zip(choices, weigh(choices), strict=True)) if weigh and choices else {}
        for asked in own:
            desk.answer(asked, weighed[asked])
    return desk.results


def _anyone(busy: bool, sharded: bool) -> bool:
    """Whether this rank has something to ask, or another one for which a sharded model needs this one."""
    return any(merge_over_ranks({ranks()[0]: busy}).values()) if sharded else busy


def _of_all_ranks(choices: list[Choices]) -> list[Choices]:
    """What all ranks want to be weighed, the same list on each: a sharded model computes when all of them do."""
    parts = merge_over_ranks({ranks()[0]: choices})
    return [*dict.fromkeys(one for rank in sorted(parts) for one in parts[rank])]


class _Desk(Generic[R]):
    """Who waits for what.

    Args:
        courses: that are run.
        context: tokens that the model has room for.

    Attributes:
        draws: that the engine has to write; what is wanted while it writes is appended.
        keys: of the draws.
        choices: to be weighed.
        results: of the courses that have ended.
    """

    def __init__(self, courses: Sequence[Course[R]], context: float):
        self.courses, self.context = courses, context
        self.draws: list[Draw] = []
        self.keys: list[Draw] = []
        self.choices: list[Choices] = []
        self.results: list[Any] = [None] * len(courses)
        self._known: dict[Any, Any] = {}
        self._wanted: dict[int, list[Any]] = {}  # of each course that waits
        self._waiting: dict[Any, dict[int, None]] = {}  # courses that wait for an answer, in order
        for number in range(len(courses)):
            self._go_on(number, None)

    @property
    def busy(self) -> bool:
        """Whether something has to be asked."""
        return bool(self.draws or self.choices)

    def answer(self, key: Draw | Choices, answer: Any) -> None:
        """Takes an answer; whoever has all of his goes on."""
        self._known[key] = answer
        for number in self._waiting.pop(key):
            if all(other in self._known for other in self._wanted[number]):
                self._go_on(number, [self._known[other] for other in self._wanted.pop(number)])

    def _go_on(self, number: int, answers: list[Any] | None) -> None:
        """Send a course its answers, until it waits for others or ends."""
        while True:
            try:
                wanted = [self._key(one) for one in self.courses[number].send(answers)]  # type: ignore[arg-type]  # None begins
            except StopIteration as end:
                self.results[number] = end.value
                return
            if missing := [key for key in wanted if key not in self._known]:
                self._wanted[number] = wanted
                for key in missing:
                    self._waiting[key][number] = None
                return
            answers = [self._known[key] for key in wanted]

    def _key(self, wanted: Draw | Choices) -> Draw | Choices:
        """What a question is known by; one that nobody has asked before is put among those to be asked.

        Tokens are copied: a course may go on with the same list before its question is answered.
        """
        if not 0 < len(tokens := wanted[0]) < self.context:
            most = f", and the model's context is {self.context}" if tokens else ": at least 1 is needed"
            raise UserError(f"a prompt has {len(tokens)} tokens{most}")
        if isinstance(wanted, Choices):
            choices = Choices(tuple(wanted.prompt), tuple(map(tuple, wanted.choices)))
            if (longest := len(tokens) + max(map(len, choices.choices), default=0)) > self.context:
                most = f"and the model's context is {self.context}"
                raise UserError(f"a prompt with a choice has {longest} tokens, {most}")
            if self._is_new(choices):
                self.choices.append(choices)
            return choices
        draw = wanted._replace(prefix=tuple(wanted.prefix), root=None)
        if self._is_new(draw):
            self.draws.append(draw if wanted.root is None else draw._replace(root=tuple(wanted.root)))
            self.keys.append(draw)
        return draw

    def _is_new(self, key: Draw | Choices) -> bool:
        """Whether nobody has asked it before; from now on somebody has."""
        new = key not in self._known and key not in self._waiting
        if new:
            self._waiting[key] = {}
        return new
