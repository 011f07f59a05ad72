"""Embeddings on disk, found by the content of the text: what was encoded once is never encoded again.

A store belongs to one encoder: its folder is named by all that decides a vector (lm/retrieval/embed_and_search.py). It
is a set of parts, each written by one process and only ever appended to, so that processes never wait for one another.
Beside each key stands a checksum of key and vector: whatever a kill, a full disk or a lost page left of a part, a
vector that is not the one that was written is not found, and is made anew. Parts are read through memory maps. A note
says what the vectors depend on, so that whoever looks beside it learns why they are not for him.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.files.made_by import not_taken

NOTE = "made_by.json"

KEY = 16
"""Bytes of a key."""

CHECK = 8
"""Bytes of a checksum."""

TOGETHER = 4096  # vectors that are verified at once


class EmbeddingStore:
    """Vectors by key.

    Args:
        folder: where the parts lie; made when something is written.
        dim: width of the vectors.
        made_by: on what they depend beside their texts, by the name of the dependence.

    Attributes:
        damaged: vectors that were looked for and were not as they had been written.
    """

    def __init__(self, folder: Path, dim: int, made_by: Mapping[str, str] | None = None):
        self.folder, self.dim, self.damaged = folder, dim, 0
        self.made_by = dict(made_by or {})
        self._own: tuple[Path, Path] | None = None
        self.reload()

    def reload(self) -> None:
        """Look again at what is on disk, also from other processes."""
        self._parts: list[np.ndarray] = []
        rows = [np.empty((0, KEY + CHECK), np.uint8)]
        for file in sorted(self.folder.glob("*.keys")):
            vectors = file.with_suffix(".vectors")
            held = vectors.stat().st_size if vectors.exists() else 0
            n = min(file.stat().st_size // (KEY + CHECK), held // (4 * self.dim))
            if n:
                rows.append(np.fromfile(file, np.uint8, n * (KEY + CHECK)).reshape(n, KEY + CHECK))
                self._parts.append(np.memmap(vectors, np.float32, "r", shape=(n, self.dim)))
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self._rows = np.concatenate(rows)
        self._verified = np.zeros(len(self._rows), bool)
        sortable = _sortable(self._rows[:, :KEY])
        self._order = np.argsort(sortable, kind="stable")
        self._keys = sortable[self._order]

    def why_empty(self, related: Collection[str]) -> str | None:
        """Why the vectors of the stores beside this one are not taken, in a line; None if it has some itself.

        Args:
            related: see `lm.files.made_by.not_taken`.
        """
        if len(self._rows):
            return None
        beside = (note for note in self.folder.parent.glob(f"*/{NOTE}") if note.parent != self.folder)
        return not_taken("embeddings", self.folder.parent, self.made_by, map(_noted, beside), related)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where the vectors of keys uint8 [n, 16] are, int64 [n]; -1 for those that are not stored, or not whole."""
        wanted = _sortable(keys)
        while True:
            places = self._look_up(wanted)
            new = np.unique(places[places >= 0])
            new = new[~self._verified[new]]
            self._verified[new] = True
            broken = self._broken(new)
            if not len(broken):
                return places
            self.damaged += len(broken)
            kept = ~np.isin(self._order, broken)  # then another copy of the same key may be found
            self._order, self._keys = self._order[kept], self._keys[kept]

    def _look_up(self, wanted: np.ndarray) -> np.ndarray:
        if not len(self._keys):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, self._order[place], -1)

    def _broken(self, places: np.ndarray) -> np.ndarray:
        """Those of some places whose vector is not the one that was written under the key."""
        found = [np.empty(0, np.int64)]
        for first in range(0, len(places), TOGETHER):
            part = places[first : first + TOGETHER]
            right = _checksums(self._rows[part, :KEY], self.take(part)) == self._rows[part, KEY:]
            found.append(part[~right.all(axis=1)])
        return np.concatenate(found)

    def append(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Write vectors float32 [n, dim] under keys uint8 [n, 16]; `find` knows them after `reload`."""
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.made_by:
                with suppress(FileExistsError), (self.folder / NOTE).open("x", encoding="utf-8") as note:
                    json.dump(self.made_by, note)
            vectors_file = self.folder / f"{uuid.uuid4().hex}.vectors"
            self._own = vectors_file.with_suffix(".keys"), vectors_file
        vectors = np.ascontiguousarray(vectors, np.float32)
        rows = np.concatenate([keys, _checksums(keys, vectors)], axis=1)
        for path, content in ((self._own[1], vectors), (self._own[0], rows)):
            with path.open("ab") as file:
                file.write(content.tobytes())

    def sync(self) -> None:
        """Have what this process wrote on the disk, whatever happens to the machine."""
        for path in self._own or ():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def take(self, places: np.ndarray) -> np.ndarray:
        """The vectors at places that `find` gave, float32 [n, dim]."""
        out = np.empty((len(places), self.dim), np.float32)
        part = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(part):
            rows = part == number
            out[rows] = self._parts[number][places[rows] - self._starts[number]]
        return out


def _noted(note: Path) -> dict[str, str]:
    """What a store depends on; nothing where that cannot be read."""
    try:
        made_by = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return made_by if isinstance(made_by, dict) else {}


def _sortable(keys: np.ndarray) -> np.ndarray:
    """Keys as byte strings; numpy drops zero bytes at their end, which is no harm: all are equally long."""
    return np.ascontiguousarray(keys).view(f"S{KEY}").ravel()


def _checksums(keys: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Of each key uint8 [n, 16] with its vector float32 [n, dim], uint8 [n, 8]."""
    pairs = zip(keys, vectors, strict=True)
    digests = (hashlib.blake2b(key.tobytes() + vector.tobytes(), digest_size=CHECK).digest() for key, vector in pairs)
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, CHECK)


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
