"""Many lists of token ids in one flat array: four bytes a token, where Python's own lists would take dozens."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np


class TokenLists:
    """Many lists of token ids, one after the other."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._starts = array("q", [0])

    def append(self, ids: Sequence[int]) -> None:
        """Add a list."""
        self._ids.extend(ids)
        self._starts.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        """One list, int32; not to be changed."""
        return self.ids[self._starts[number] : self._starts[number + 1]]

    def length(self, number: int) -> int:
        """Tokens of one list."""
        return self._starts[number + 1] - self._starts[number]

    @property
    def ids(self) -> np.ndarray:
        """All of them, int32 [T]."""
        return np.frombuffer(self._ids, np.int32) if self._ids else np.empty(0, np.int32)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each list, int64."""
        return np.diff(np.frombuffer(self._starts, np.int64))
