"""Writing an answer that looks passages up: the rules of citing, over an engine that asks (arXiv 2403.09024).

    free text --[Ret]--> search: passage [Cs] are appended --> citation --[Ce]--> free text

In free text nothing but a look-up opens a citation; within one, no other begins. A look-up that finds nothing is taken
out of the answer, which goes on as free text and looks nothing up any more. Engines keep what they computed, so a
look-up costs the tokens of its passage and no more. This file knows tokens and places of passages. It does not know
models, nor how a passage is found (modules/co_supervision/searching.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lm.generation.decoding import Decoding, Draw, Drawing, Pause, Reply, Sample, TokenHook
from lm.generation.rounds import Course, run_rounds
from lm.generation.sampling import seed_of
from lm.tokens.cited_tokens import Vocabulary
from modules.co_supervision.look_ups import Asked, Hit, LookUp
from text.citing.citations import Piece
from text.errors import UserError


@dataclass(frozen=True)
class Citing:
    """Rules of an answer that cites.

    Args:
        max_retrievals: look-ups of an answer; afterwards it goes on without.
        retrieve_first: begin with a look-up, whether the model would or not.
        forget: once a citation ends, its passage is taken out of the context; what follows from it stays.
    """

    max_retrievals: int = 8
    retrieve_first: bool = False
    forget: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.max_retrievals < int(self.retrieve_first):
            raise UserError(
                f"citing: 'max_retrievals' is {self.max_retrievals}; it must be {int(self.retrieve_first)} or more"
            )


class Retrieved(NamedTuple):
    """A look-up of an answer.

    Args:
        id: of the passage; None where nothing was found.
        score: of it.
        position: of the look-up among the tokens of the answer, as they stood in the context then.
        used: whether there is a passage, and it had room.
    """

    id: str | None
    score: float
    position: int
    used: bool


class Answer(NamedTuple):
    """What was written.

    Args:
        pieces: free text and citations, in order.
        retrieved: look-ups in order.
        n_tokens: of the answer as the context holds it at its end, with those of passages that are not forgotten.
        finish_reason: ``end``, or ``length`` where it had no more room.
    """

    pieces: list[Piece]
    retrieved: list[Retrieved]
    n_tokens: int
    finish_reason: str


Find = Callable[[Sequence[LookUp]], Sequence[Hit | None]]
UNFOUND: dict[str, Any] = {}
"""What a sample keeps of a look-up that found nothing, where others keep their `Hit`."""


class Writer:
    """Writes answers that cite.

    Args:
        engine: who writes.
        by: makes control tokens.
        passages: tokens of all of them.
        find: the best passage of each look-up, or None.
        citing: the rules.
        decoding: how tokens are chosen; its ``max_new_tokens`` are of the whole answer, with the passages that the
            context holds: one that is forgotten gives its room back.
        seed: of all draws.
        key: what passages are found by, in a few letters: kept answers are found by it.
    """

    def __init__(
        self,
        engine: Drawing,
        by: Vocabulary,
        passages: Sequence[Sequence[int]],
        find: Find,
        citing: Citing,
        decoding: Decoding,
        seed: int,
        key: str,
    ):
        self.engine, self.by, self.passages, self.find = engine, by, passages, find
        self.citing, self.decoding, self.seed = citing, decoding, seed
        self._asked: dict[int, Asked] = {}  # by the seeds of their draws
        pauses = {by.retrieve} if citing.forget else {by.retrieve, by.end}
        self.hook = TokenHook(frozenset(pauses), self._reply, f"{key} {citing}")

    # --- what the engine is told ------------------------------------------------------------------------------------

    def free(self, look_ups: int) -> Decoding:
        """How free text goes on after so many look-ups."""
        last = [self.by.retrieve] if look_ups >= self.citing.max_retrievals else []
        return self._without(self.by.begin, self.by.end, *self.by.embed, *last)

    def within(self) -> Decoding:
        """How a citation goes on."""
        decoding = self._without(self.by.begin, self.by.retrieve, *self.by.embed)
        return replace(decoding, stop=(*decoding.stop, self.by.tokens.end)) if self.citing.forget else decoding

    def _without(self, *ids: int) -> Decoding:
        return replace(self.decoding, forbidden=(*self.decoding.forbidden, *ids))

    def _reply(self, pauses: Sequence[Pause]) -> list[Reply]:
        """A passage for each look-up, or the end of the draw where there is none; after a citation, free text."""
        asking = [pause for pause in pauses if pause.tokens[-1] == self.by.retrieve]
        look_ups = [LookUp(self._asked[p.draw.seed], (*p.draw.prefix, *p.tokens), p.state) for p in asking]
        found = [*(self.find(look_ups) if look_ups else ())]
        replies = []
        for pause in pauses:
            if pause.tokens[-1] == self.by.retrieve:
                replies.append(self._found(found.pop(0), pause))
            else:
                done = (*pause.draw.prefix, *pause.tokens).count(self.by.begin)
                replies.append(Reply((), self._as_long(self.free(done), pause)))
        return replies

    def _found(self, hit: Hit | None, pause: Pause) -> Reply:
        if hit is None:
            assert pause.draw.decoding is not None
            return Reply((), replace(pause.draw.decoding, max_new_tokens=len(pause.tokens)), UNFOUND)
        return Reply(self._opening(hit.place), self._as_long(self.within(), pause), hit._asdict())

    def _as_long(self, decoding: Decoding, pause: Pause) -> Decoding:
        """With as much room as the draw had from the beginning."""
        assert pause.draw.decoding is not None
        return replace(decoding, max_new_tokens=pause.draw.decoding.max_new_tokens)

    def _opening(self, place: int) -> tuple[int, ...]:
        """A passage, and what opens the citation of it."""
        return *self.passages[place], self.by.begin

    # --- an answer --------------------------------------------------------------------------------------------------

    def write(self, asked: Sequence[Asked]) -> list[Answer]:
        """The answers to some questions."""
        firsts: Sequence[Hit | None] = [None] * len(asked)
        if self.citing.retrieve_first:
            firsts = self.find([LookUp(one, (*one.prompt, self.by.retrieve)) for one in asked])
        courses = [self._course(one, first) for one, first in zip(asked, firsts, strict=True)]
        return run_rounds(courses, _Hooked(self.engine, self.hook), self.decoding)

    def _course(self, asked: Asked, first: Hit | None) -> Course[Answer]:
        """One answer: a draw, and another one after a look-up that found nothing, or a citation that is forgotten."""
        made = _Made(self.by)
        context = asked.prompt
        if first is None and self.citing.retrieve_first:
            made.look_up(None, 0, False)
        if first is not None:
            opening = self.by.retrieve, *self._opening(first.place)
            fits = self._room(asked, (*context, *opening)) > 0
            made.look_up(first, 0, fits)
            if not fits:
                return made.answer(0, "length")
            context += opening
        for number in range(self.citing.max_retrievals + 2):
            room = self._room(asked, context)
            if room < 1:
                break
            seed = seed_of(self.seed, asked.id, number)
            self._asked[seed] = asked
            is_open, done = made.passage is not None, context.count(self.by.begin)
            decoding = self.within() if is_open else self.free(self.citing.max_retrievals if made.unfound else done)
            [sample] = yield [Draw(context, seed, 0, decoding=replace(decoding, max_new_tokens=room))]
            made.take(sample, len(context) - len(asked.prompt))
            if sample.replies and sample.replies[-1].note == UNFOUND:
                context += sample.tokens[:-1]
                continue
            if not self._goes_on(sample):
                return made.answer(
                    len(context) - len(asked.prompt) + len(sample.tokens), "end" if sample.finished else "length"
                )
            context = self._forgotten(context, sample, is_open)
        return made.answer(len(context) - len(asked.prompt), "length")

    def _room(self, asked: Asked, context: Sequence[int]) -> int:
        """Tokens that can follow a context."""
        most = self.decoding.max_new_tokens - (len(context) - len(asked.prompt))
        return int(min(most, self.engine.context - len(context)))

    def _goes_on(self, sample: Sample) -> bool:
        """Whether a draw ended with its citation, whose passage is to be forgotten."""
        stopped = sample.finished and sample.end is None
        return self.citing.forget and stopped and sample.tokens[-1:] == (self.by.end,)

    def _forgotten(self, context: tuple[int, ...], sample: Sample, is_open: bool) -> tuple[int, ...]:
        """What stays of a context and a draw: all but the look-up and its passage."""
        if is_open:
            at = len(context) - 1 - context[::-1].index(self.by.retrieve)
            return (*context[:at], self.by.begin, *sample.tokens)
        [reply] = [reply for reply in sample.replies if reply.length]
        kept = sample.tokens[: reply.at - 1], sample.tokens[reply.at + reply.length - 1 :]
        return (*context, *kept[0], *kept[1])


class _Made:
    """What there is of an answer.

    Args:
        by: reads tokens.

    Attributes:
        passage: that is cited at the moment.
        unfound: whether a look-up found nothing.
    """

    def __init__(self, by: Vocabulary):
        self.by, self.passage, self.unfound = by, None, False
        self.pieces: list[Piece] = []
        self.retrieved: list[Retrieved] = []
        self._tokens: list[int] = []

    passage: str | None

    def look_up(self, hit: Hit | None, position: int, used: bool) -> None:
        """A passage was found, or nothing was."""
        if hit is None:
            self.retrieved.append(Retrieved(None, 0.0, position, False))
            self.unfound = True
            return
        self._close()
        self.retrieved.append(Retrieved(hit.id, hit.score, position, used))
        self.passage = hit.id if used else None

    def take(self, sample: Sample, begin: int) -> None:
        """A draw that begins so many tokens behind the question."""
        replies = {reply.at: reply for reply in sample.replies if reply.note is not None}
        behind = 0
        for place, token in enumerate(sample.tokens):
            if place < behind:
                continue
            if token == self.by.retrieve and (reply := replies.get(place + 1)) is not None:
                self.look_up(Hit(**reply.note) if reply.note else None, begin + place, reply.length > 0)
                behind = place + 1 + reply.length
            elif token == self.by.end:
                self._close()
            else:
                self._tokens.append(token)

    def _close(self) -> None:
        """A piece ends."""
        if self._tokens or self.passage is not None:
            self.pieces.append(Piece(self.by.text(self._tokens), self.passage))
        self._tokens, self.passage = [], None

    def answer(self, tokens: int, finish_reason: str) -> Answer:
        """The whole; a citation that is open is closed."""
        self._close()
        return Answer(self.pieces, self.retrieved, tokens, finish_reason)


class _Hooked(Drawing):
    """An engine that is always asked with the same hook."""

    def __init__(self, engine: Drawing, hook: TokenHook):
        super().__init__(engine.context, engine.sharded)
        self.engine, self.own = engine, hook

    def serve(self, draws: list[Draw], decoding: Decoding, hook: Any = None) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw; see `lm.generation.engine.Engine.serve`."""
        return self.engine.serve(draws, decoding, self.own)
