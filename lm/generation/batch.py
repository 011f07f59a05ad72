"""A batch whose rows are replaced as they end: where each row is, its tokens, and its keys and values.

This file knows rows and tokens. It does not know who is taken in (lm/generation/cached.py).

Legend: B rows, W columns of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lm.generation.engine import left_padded
from lm.generation.prefix_cache import Run, place
from lm.generation.rolling_cache import KeysValues, RollingCache
from lm.generation.rows import Row

ROOM = 64  # columns of the cache beyond what rows can fill: the more, the seldomer it is moved


class Seats(NamedTuple):
    """Where the rows of a batch are, once those that ended are gone and others are taken in.

    Args:
        kept: of each place where a row goes on, the place at which it was.
        fresh: places of those that are taken in.
    """

    kept: dict[int, int]
    fresh: list[int]

    @classmethod
    def of(cls, live: Sequence[bool], taken: int) -> Seats:
        """Rows fill the first places, and as few of them move as can be.

        Who is taken in gets the places of rows that ended, then those behind all rows. Places that are left are filled
        by the last rows. Six rows of which three have ended, and x is taken in:

            place     0  1  2  3  4  5
            before    a  .  c  .  .  f
            after     a  x  c  f            kept {0: 0, 2: 2, 3: 5}, fresh [1]

        Args:
            live: whether each row goes on.
            taken: how many are taken in.
        """
        going_on = [place for place, lives in enumerate(live) if lives]
        ended = [place for place, lives in enumerate(live) if not lives]
        count = len(going_on) + taken
        fresh = [*ended, *range(len(live), len(live) + taken)][:taken]
        moved = dict(zip(ended[taken:], (place for place in going_on if place >= count), strict=False))
        return cls({place: place for place in going_on if place < count} | moved, fresh)


class Batch:
    """The rows that are written at the moment.

    Args:
        device: of the model.

    Attributes:
        rows: B of them; None where one has ended.
        ids: padding, prefixes and what was written, [B, W].
        mask: 0 where `ids` are padding, like `ids`.
        width: columns of each row before its continuation [B].
        cache: of all columns but the last.
    """

    def __init__(self, device: torch.device):
        self.rows = list[Row | None]()
        self.ids = self.mask = torch.zeros(0, 1, dtype=torch.long, device=device)
        self.width = torch.zeros(0, dtype=torch.long, device=device)
        self.cache = RollingCache()

    @property
    def live(self) -> list[Row]:
        """The rows that go on."""
        return [row for row in self.rows if row is not None]

    def fill(self, taken: Sequence[tuple[Row, Run]], most: int) -> None:
        """Put rows where others have ended, and behind them.

        Rows that have ended and are not needed are left behind, and so are columns that are padding in all rows.

        Args:
            taken: rows, and where what was computed of them ends.
            most: columns that rows can fill.
        """
        seats = Seats.of([row is not None for row in self.rows], len(taken))
        going_on = self.mask[[*seats.kept.values()]].sum(dim=1).tolist()
        columns = max([*(len(row.tokens) for row, _ in taken), *going_on])
        self._fill_cache(seats, taken, columns, most)
        self._fill_tokens(seats, [row for row, _ in taken], columns)
        new = {place: self.rows[old] for place, old in seats.kept.items()}
        new |= {place: row for place, (row, _) in zip(seats.fresh, taken, strict=True)}
        self.rows = [new[place] for place in range(len(new))]

    def _fill_cache(self, seats: Seats, taken: Sequence[tuple[Row, Run]], columns: int, most: int) -> None:
        moved = {place: old for place, old in seats.kept.items() if place != old}
        self.cache.move(moved, len(seats.kept) + len(seats.fresh), self.ids.device)
        self.cache.fit(most + ROOM, columns - 1)
        computed = [(end, len(row.tokens) - 1) for row, end in taken]
        place(self.cache, columns - 1, dict(zip(seats.fresh, computed, strict=True)))
        if self.cache.room < ROOM:
            self.cache.make_room()

    def _fill_tokens(self, seats: Seats, taken: Sequence[Row], columns: int) -> None:
        places, old = [*seats.kept], [*seats.kept.values()]
        ids, mask = self.ids.new_zeros(2, len(places) + len(taken), columns)
        width = torch.full((len(ids),), columns, device=ids.device)
        width[places] += self.width[old] - self.ids.shape[1]
        ids[places], mask[places] = _fitted(self.ids[old], columns), _fitted(self.mask[old], columns, 0)
        if taken:
            width[seats.fresh] -= torch.tensor([len(row.written) for row in taken], device=ids.device)
            tokens, real = left_padded([row.tokens for row in taken], ids.device)
            ids[seats.fresh], mask[seats.fresh] = _fitted(tokens, columns), _fitted(real, columns, 0)
        self.ids, self.mask, self.width = ids, mask, width

    def part(self, number: int, first: int, begin: int, end: int) -> KeysValues:
        """What was computed of some tokens of a row, counted from its first one in this column."""
        return self.cache.part(number, first + begin, first + end)

    def take(self, written: Tensor, found: Iterable[int]) -> None:
        """What was written of the rows; those that were found have ended, or pause."""
        self.mask = F.pad(self.mask, (0, written.shape[1] - self.mask.shape[1]), value=1)
        self.ids = written
        for number in found:
            self.rows[number] = None


def _fitted(columns: Tensor, width: int, padding: int | None = None) -> Tensor:
    """The last columns [B, W]; where there are not so many, with padding on the left: by default the first again."""
    columns = columns[:, -width:]
    missing = (len(columns), width - columns.shape[1])
    left = columns[:, :1].expand(missing) if padding is None else columns.new_full(missing, padding)
    return torch.cat([left, columns], dim=1)
