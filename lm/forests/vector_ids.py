"""Ids of positions that hold a given vector instead of a token: a frame of a video, a soft prompt.

Such an id is `FIRST_VECTOR` plus a row of a table of vectors, so that it is an integer like any token: trees merge,
split and pack it as they do tokens, and no vocabulary is large enough to have it. This file knows integers, no vectors.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from text.errors import UserError

FIRST_VECTOR = 2**30  # above every vocabulary, and every table that fits a memory still ends within 32 bits


class VectorIds:
    """Gives out runs of ids by key: equal keys get equal ids, which merge in a forest, and different keys never do.

    Attributes:
        lengths: vectors of each key, in the order of the rows of their table.
    """

    def __init__(self) -> None:
        self.lengths: dict[Hashable, int] = {}
        self._runs: dict[Hashable, np.ndarray] = {}

    def __len__(self) -> int:
        """Rows of the table."""
        return sum(self.lengths.values())

    def run(self, key: Hashable, length: int) -> np.ndarray:
        """The ids of the vectors of a key, to be put among the tokens of a path or a node [length], int64.

        Raises:
            UserError: the key has had a run of another length.
        """
        if self.lengths.get(key, length) != length:
            raise UserError(f"{key!r} stands for {self.lengths[key]} vectors, and cannot stand for {length} as well")
        if key not in self._runs:
            begin = FIRST_VECTOR + len(self)
            self.lengths[key], self._runs[key] = length, np.arange(begin, begin + length)
        return self._runs[key]
