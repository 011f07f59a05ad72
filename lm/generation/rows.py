"""Rows that are being written: of draws, and of continuations that go on after a reply.

This file knows what is asked for, and what became of it. It does not know how rows are computed
(lm/generation/engine.py).

Legend: D width of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lm.generation.decoding import Decoding, Draw, Pause, Replied, Reply, Sample, TokenHook


@dataclass(frozen=True)
class Row:
    """A draw that is being written.

    Args:
        place: of the draw.
        draw: with its decoding.
        decoding: how the next tokens are chosen.
        written: tokens of its continuation; a batch adds to them when it lets go of the row.
        replies: what a hook put in.
    """

    place: int
    draw: Draw
    decoding: Decoding
    written: tuple[int, ...] = ()
    replies: tuple[Replied, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """All that comes before the next token."""
        return *self.draw.prefix, *self.written

    @property
    def most(self) -> int:
        """Tokens that it has at its longest."""
        return len(self.draw.prefix) + self.decoding.max_new_tokens

    @property
    def own(self) -> int:
        """Tokens of the continuation up to the last that a hook put in."""
        return max((reply.at + reply.length for reply in self.replies if reply.length), default=0)


class Written(NamedTuple):
    """What became of a row of a batch: it ended, and there is a sample, or it pauses, and there is a state [D]."""

    row: Row
    sample: Sample | None
    state: Tensor | None = None


class Work:
    """The rows that are to be written: those of draws, and those that go on after a pause.

    Args:
        draws: more may be appended.
        decoding: of draws without one of their own.
        hook: what is asked when certain tokens are written.
    """

    def __init__(self, draws: list[Draw], decoding: Decoding, hook: TokenHook | None):
        self.draws, self.decoding, self.hook = draws, decoding, hook
        self._begun = 0
        self._resumed: list[Row] = []

    @property
    def pause_ids(self) -> frozenset[int]:
        """Tokens at which rows pause."""
        return frozenset() if self.hook is None else self.hook.tokens

    def new(self) -> list[Row]:
        """What has come since the last time: rows that go on, then those of draws."""
        begin, self._begun, resumed, self._resumed = self._begun, len(self.draws), self._resumed, []
        for place in range(begin, self._begun):
            draw = self.draws[place]
            decoding = draw.decoding or self.decoding
            resumed.append(Row(place, draw._replace(decoding=decoding), decoding))
        return resumed

    def replies(self, batch: Sequence[Written]) -> Iterator[tuple[Row, Reply]]:
        """What the hook says to the rows that pause."""
        paused = [written.row for written in batch if written.sample is None]
        if self.hook is None or not paused:
            return
        states = [written.state for written in batch if written.state is not None]
        pauses = [Pause(row.draw, row.written, state) for row, state in zip(paused, states, strict=True)]
        yield from zip(paused, self.hook.reply(pauses), strict=True)

    def resume(self, row: Row) -> None:
        """A row goes on."""
        self._resumed.append(row)
