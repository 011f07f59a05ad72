"""Keys and values of prefixes: what several of them begin with is computed once, and kept until others need its room.

Prefixes are kept as a trie of runs, tokens without a fork. The prompts of a question share its passages, one long run
with a short one behind it for each prompt:

    passages -+- "Who wrote it?"
              +- "Name two candidates."
              +- "Summarise."

They cost two forwards: the passages, then a row for each of the short runs. This file knows tokens, and which of them
are computed at a time. It does not know how: a function does that, into a cache (lm/generation/rolling_cache.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lm.generation.rolling_cache import KeysValues, RollingCache, cut

FORWARD = 128  # tokens that take about as long as one forward more: to spare it so many are padding or computed twice

Read = Callable[[Tensor, Tensor, RollingCache], object]
"""A forward over ids and mask [B, W], of which the cache holds the first columns and takes the others."""


class Run:
    """Tokens without a fork.

    Args:
        tokens: of the run.
        before: the run that it follows; None for the one without tokens, with which all prefixes begin.

    Attributes:
        begin: how many tokens come before it.
        parts: its keys and values; None until they are computed.
        after: the runs that follow, by their first token.
        used: when it was asked for, as a count.
    """

    def __init__(self, tokens: tuple[int, ...], before: Run | None = None):
        self.tokens, self.before = tokens, before
        self.begin = 0 if before is None else before.end
        self.parts: KeysValues | None = [] if before is None else None
        self.after: dict[int, Run] = {}
        self.used = 0

    @property
    def end(self) -> int:
        """How many tokens there are up to its end."""
        return self.begin + len(self.tokens)

    @property
    def path(self) -> list[Run]:
        """The runs from the beginning up to this one."""
        runs, run = list[Run](), self
        while run.before is not None:
            runs.append(run)
            run = run.before
        return runs[::-1]

    @property
    def below(self) -> Iterator[Run]:
        """All that follows, each run behind the one that it follows."""
        runs = [*self.after.values()]
        while runs:
            run = runs.pop()
            yield run
            runs += run.after.values()

    @property
    def missing(self) -> list[Run]:
        """What follows and is not computed."""
        return [run for run in self.after.values() if run.parts is None]

    @property
    def branches(self) -> int:
        """How many rows compute it if each of the prefixes that are missing is a row."""
        return sum(run.parts is None and not run.missing for run in self.below) or 1


class PrefixCache:
    """Keys and values of the prefixes that were asked for last.

    Args:
        read: computes tokens.
        tokens: that are kept beside those in use, and computed at a time.
        device: of the model.

    Attributes:
        computed: tokens that were computed so far, without padding.
    """

    def __init__(self, read: Read, tokens: int, device: torch.device):
        self.read, self.tokens, self.device, self.computed = read, tokens, device, 0
        self._top, self._count = Run(()), 0

    def take(self, prefixes: Sequence[tuple[int, ...]]) -> list[Run]:
        """The run with which each prefix ends, computed with all before it. Of a prefix of one token nothing is."""
        self._count += 1
        ends = [self._end(prefix) if len(prefix) > 1 else self._top for prefix in prefixes]
        self._forget()
        while rows := self._next(ends):
            for chunk in self._chunks(rows):
                self._compute(chunk)
        return ends

    def expect(self, prefixes: Sequence[tuple[int, ...]]) -> None:
        """These will be asked for, the first of them soonest: what is at hand of them is forgotten last.

        A run counts by its first token, though a prefix may part from it further on.
        """
        for prefix in reversed(prefixes):
            self._count += 1
            run = self._top
            while run.end < len(prefix) and (following := run.after.get(prefix[run.end])):
                run = following
                run.used = self._count

    def keep(self, prefix: tuple[int, ...], part: Callable[[int, int], KeysValues]) -> None:
        """Take over what was computed elsewhere: `part` gives keys and values of some token up to another."""
        for run in self._end(prefix).path:
            if run.parts is None:
                run.parts = part(run.begin, run.end)

    def read_last(self, prefixes: Sequence[tuple[int, ...]]) -> None:
        """One forward over the last token of different prefixes, all others of which are there."""
        for prefix in prefixes:
            self._end(prefix[:-1])  # so that the last token is a run
        self._compute([[self._end(prefix)] for prefix in prefixes])

    # --- the trie -----------------------------------------------------------------------------------------------------

    def _end(self, prefix: tuple[int, ...]) -> Run:
        """The run with which a prefix ends: a new one, or the first part of one that goes on otherwise."""
        run = self._top
        while run.end < len(prefix):
            rest = prefix[run.end :]
            following = run.after.get(rest[0])
            if following is None:
                following = run.after[rest[0]] = Run(rest, run)
            elif (alike := common(following.tokens, rest)) < len(following.tokens):
                following = self._fork(following, alike)
            run = following
            run.used = self._count
        return run

    def _fork(self, run: Run, length: int) -> Run:
        """Cuts a run in two; the new one holds its first tokens."""
        assert run.before is not None
        first = Run(run.tokens[:length], run.before)
        first.used, first.after = run.used, {run.tokens[length]: run}
        run.before.after[run.tokens[0]] = first
        if run.parts is not None:
            first.parts, run.parts = cut(run.parts, 0, length), cut(run.parts, length, len(run.tokens))
        run.tokens, run.before, run.begin = run.tokens[length:], first, first.end
        return first

    def _forget(self) -> None:
        """Lets go of what was not in use for the longest time, so that the rest and what is missing have room."""
        runs = [*self._top.below]
        idle = [run for run in runs if run.used < self._count]
        too_many = sum(len(run.tokens) for run in runs if run.parts is None or run.used < self._count) - self.tokens
        # A run is in use whenever one that follows it is, so that these go first; the sort keeps the order of equals.
        for run in sorted(reversed(idle), key=lambda run: run.used):
            if too_many > 0 and run.before is not None:
                too_many -= len(run.tokens)
                del run.before.after[run.tokens[0]]

    # --- what is computed ---------------------------------------------------------------------------------------------

    def _next(self, ends: Sequence[Run]) -> list[list[Run]]:
        """The rows that can be computed next, each of runs that follow one another.

        A row ends at a fork if that pays: its tokens are then computed once, in place of once for each branch.
        """
        first = {id(run): run for end in ends for run in _first_missing(end)}
        rows, going_on = list[list[Run]](), [[run] for run in first.values()]
        while going_on:
            row = going_on.pop()
            if not row[-1].missing or (row[-1].branches - 1) * _length(row) >= FORWARD:
                rows.append(row)
            else:
                going_on += [[*row, run] for run in row[-1].missing]
        return rows

    def _chunks(self, rows: Sequence[list[Run]]) -> Iterator[list[list[Run]]]:
        """Rows by forward: about equally long, and as many as there is room for."""
        chunk, padding, past = list[list[Run]](), 0, 0
        for row in sorted(rows, key=_length, reverse=True):
            longest = _length(chunk[0] if chunk else row)
            padding, past = padding + longest - _length(row), max(past, row[0].begin)
            if chunk and (padding > FORWARD or (len(chunk) + 1) * (past + longest) > self.tokens):
                yield chunk
                chunk, padding, past = [], 0, row[0].begin
            chunk.append(row)
        yield chunk

    def _compute(self, rows: Sequence[list[Run]]) -> None:
        """One forward. What comes before a row is padded on the left; the row on the right, where no token sees it."""
        past, new = max(row[0].begin for row in rows), max(map(_length, rows))
        ids = torch.zeros(len(rows), past + new, dtype=torch.long)
        mask = torch.ones_like(ids)
        for number, row in enumerate(rows):
            ids[number, past : past + _length(row)] = torch.tensor([token for run in row for token in run.tokens])
            mask[number, : past - row[0].begin] = 0
        cache = RollingCache()
        cache.move({}, len(rows), self.device)
        cache.fit(past + new, 0)
        place(cache, past, {number: (row[0].before or self._top, row[0].begin) for number, row in enumerate(rows)})
        self.read(ids.to(self.device), mask.to(self.device), cache)
        self.computed += sum(map(_length, rows))
        for number, row in enumerate(rows):
            shift = past - row[0].begin
            for run in row:
                run.parts = run.parts or cache.part(number, shift + run.begin, shift + run.end)


def place(cache: RollingCache, width: int, beginnings: dict[int, tuple[Run, int]]) -> None:
    """Show a cache's last columns, and make some rows beginnings of prefixes, which end in the last column.

    Args:
        cache: that has room for them.
        width: how many columns.
        beginnings: of each row: where the prefix ends, and how many of its tokens.
    """
    cache.begin(width, max((len(run.parts or ()) for run, _ in beginnings.values()), default=0))
    alike: dict[tuple[Run, int], list[int]] = {}
    for row, beginning in beginnings.items():
        alike.setdefault(beginning, []).append(row)
    for (end, tokens), rows in alike.items():
        cache.place(rows, [run.parts for run in end.path if run.parts is not None], tokens)


def common(one: Sequence[int], other: Sequence[int], begin: int = 0) -> int:
    """With how many tokens two sequences begin alike, of which the first `begin` are."""
    shorter = min(len(one), len(other))
    return next((place for place in range(begin, shorter) if one[place] != other[place]), shorter)


def _first_missing(end: Run) -> list[Run]:
    return [run for run in end.path if run.parts is None][:1]


def _length(row: Sequence[Run]) -> int:
    return row[-1].end - row[0].begin
