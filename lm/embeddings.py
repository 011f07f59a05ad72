"""Embeddings on disk, found by the content of the text: what was encoded once is never encoded again.

A store belongs to one encoder (its folder is named by the encoder's fingerprint). It is a set of parts, each written by
one process and only ever appended to: first vectors, then keys, so that a kill at any byte loses nothing that was
complete, and processes never wait for one another. Parts are read through memory maps.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KEY = 16
"""Bytes of a key."""


class EmbeddingStore:
    """Vectors by key.

    Args:
        folder: where the parts lie; made when something is written.
        dim: width of the vectors.
    """

    def __init__(self, folder: Path, dim: int):
        self.folder, self.dim = folder, dim
        self._own: tuple[Path, Path] | None = None
        self.reload()

    def reload(self) -> None:
        """Look again at what is on disk, also from other processes."""
        self._parts: list[np.ndarray] = []
        keys = [np.empty((0, KEY), np.uint8)]
        for file in sorted(self.folder.glob("*.keys")):
            vectors = file.with_suffix(".vectors")
            n = min(file.stat().st_size // KEY, vectors.stat().st_size // (4 * self.dim))
            if n:
                keys.append(np.fromfile(file, np.uint8, n * KEY).reshape(n, KEY))
                self._parts.append(np.memmap(vectors, np.float32, "r", shape=(n, self.dim)))
        self._starts = np.cumsum([0, *map(len, self._parts)])
        sortable = _sortable(np.concatenate(keys))
        self._order = np.argsort(sortable, kind="stable")
        self._keys = sortable[self._order]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where the vectors of keys uint8 [n, 16] are, int64 [n]; -1 for those that are not stored."""
        wanted = _sortable(keys)
        place = np.searchsorted(self._keys, wanted)
        inside = np.minimum(place, max(len(self._keys) - 1, 0))
        if not len(self._keys):
            return np.full(len(wanted), -1)
        return np.where(self._keys[inside] == wanted, self._order[inside], -1)

    def append(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Write vectors float32 [n, dim] under keys uint8 [n, 16]; `find` knows them after `reload`."""
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(suffix=".vectors", dir=self.folder)
            os.close(handle)  # keys come later: whoever finds a file of keys finds vectors beside it
            self._own = Path(name).with_suffix(".keys"), Path(name)
        for path, rows in ((self._own[1], vectors.astype(np.float32, copy=False)), (self._own[0], keys)):
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(rows).tobytes())

    def take(self, places: np.ndarray) -> np.ndarray:
        """The vectors at places that `find` gave, float32 [n, dim]."""
        out = np.empty((len(places), self.dim), np.float32)
        part = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(part):
            rows = part == number
            out[rows] = self._parts[number][places[rows] - self._starts[number]]
        return out


def _sortable(keys: np.ndarray) -> np.ndarray:
    """Keys as byte strings; numpy drops zero bytes at their end, which is no harm: all are equally long."""
    return np.ascontiguousarray(keys).view(f"S{KEY}").ravel()


@dataclass(frozen=True)
class StoredRows:
    """Some vectors of a store in an order of one's own, read when they are asked for.

    Args:
        store: the store.
        places: of the vectors, int64 [n].
    """

    store: EmbeddingStore
    places: np.ndarray

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.places)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The vectors with these numbers, float32 [n, dim]."""
        return self.store.take(self.places[rows])
