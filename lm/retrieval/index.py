"""An index: passages that are found by a text or by a vector, as lists of them with scores, best first.

An index is made once by a `Retriever`, which knows how (lm/retrieval/bm25.py, lm/retrieval/dense.py); one of vectors
that somebody else made, such as a language model that is being trained, is a `VectorIndex` itself. Equal scores are
ordered by id, descending as strings, as trec_eval does. This file does not know what passages are wanted for.

Shape suffixes: Q queries, C passages, K passages found, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lm.retrieval.index_folder import read_index, write_index
from lm.retrieval.nearest import Vectors, by_id, nearest
from text.errors import UserError
from text.retrieval.tasks import Passage, Query

Queries: TypeAlias = Sequence[str] | Sequence[Query] | Tensor | np.ndarray
Among: TypeAlias = Sequence[Collection[str]]


class Hit(NamedTuple):
    """A passage that was found, and how well it fits."""

    passage: Passage
    score: float


@runtime_checkable
class Retrieves(Protocol):
    """Passages that can be searched.

    Attributes:
        passages: all of them.
    """

    passages: Sequence[Passage]

    def search(self, queries: Queries, k: int, among: Among | None = None) -> list[list[Hit]]:
        """The best passages of each query.

        Args:
            queries: texts, with or without an instruction; or vectors [Q, D] where the index has vectors.
            k: how many are wanted; fewer come where fewer fit.
            among: ids of the passages that each query may find; all by default.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` of the same retriever opens, whole or not at all; the folder must be free."""
        ...


class Index(ABC):
    """What indices share: places become passages, ids become places.

    Args:
        passages: with different ids, at least one.
    """

    def __init__(self, passages: Sequence[Passage]):
        self.passages = passages
        self.rows = {passage.id: row for row, passage in enumerate(passages)}
        if not passages:
            raise UserError("there is no passage to search")
        if len(self.rows) < len(passages):
            twice = next(p.id for row, p in enumerate(passages) if self.rows[p.id] != row)
            raise UserError(f"two passages have the id '{twice}'")

    def search(self, queries: Queries, k: int, among: Among | None = None) -> list[list[Hit]]:
        """See `Retrieves`."""
        found_QK, score_QK = self.places(self.read(queries), k, among)
        return [
            [Hit(self.passages[row], score) for row, score in zip(*places, strict=True) if row >= 0]
            for places in zip(found_QK.tolist(), score_QK.tolist(), strict=True)
        ]

    @abstractmethod
    def read(self, queries: Queries) -> Any:
        """Queries as `places` takes them."""

    @abstractmethod
    def places(self, queries: Any, k: int, among: Among | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the best passages, int64 [Q, K], -1 where fewer fit, and scores, float32 [Q, K]."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """See `Retrieves`."""

    @cached_property
    def order(self) -> np.ndarray:
        """Positions in the order in which equal scores come, int64 [C]."""
        return by_id([*self.rows])

    def among(self, ids: Collection[str]) -> np.ndarray:
        """The positions of some passages, in the order in which equal scores come."""
        if unknown := [id for id in ids if id not in self.rows]:
            raise UserError(f"passage '{unknown[0]}' is not in the index")
        return np.asarray([self.rows[id] for id in sorted(set(ids), reverse=True)], np.int64)


class VectorIndex(Index):
    """Passages and their vectors: the best are those of largest inner product, exactly.

    Args:
        passages: see Index.
        vectors: of the passages, float32 [C, D], on the host or, as a tensor, on a device.
        made_by: what the vectors depend on, by the name of the dependence; goes along when the index is saved.
        encode: texts of queries to vectors [Q, D]; without it the index is searched by vectors alone.
        device: where products are computed; by default where the vectors are.
        precision: see `lm.retrieval.nearest.nearest`.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        vectors: Vectors,
        made_by: Mapping[str, str] | None = None,
        encode: Callable[[Sequence[Query]], Tensor] | None = None,
        device: torch.device | str | None = None,
        precision: Literal["float64", "float32"] = "float64",
    ):
        super().__init__(passages)
        if len(vectors) != len(passages):
            raise UserError(f"{len(vectors):,} vectors for {len(passages):,} passages")
        self.vectors = vectors.detach() if isinstance(vectors, Tensor) else vectors  # a model in training made them
        self.made_by, self.encode = dict(made_by or {}), encode
        self.device = device or (vectors.device if isinstance(vectors, Tensor) else "cpu")
        self.precision: Literal["float64", "float32"] = precision

    def read(self, queries: Queries) -> Vectors:
        """Their vectors [Q, D]."""
        if isinstance(queries, Tensor | np.ndarray):
            return queries.detach() if isinstance(queries, Tensor) else queries
        if self.encode is None:
            raise UserError("this index has no encoder: search it by vectors")
        return self.encode([query if isinstance(query, Query) else Query.of(query) for query in queries])

    def places(self, queries: Vectors, k: int, among: Among | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See Index."""
        how: dict[str, Any] = {"device": self.device, "precision": self.precision}
        if among is None:
            return nearest(queries, self.vectors, self.order, k, **how)
        found = np.full((len(queries), k), -1, np.int64)
        score = np.zeros((len(queries), k), np.float32)
        for row, ids in zip(range(len(queries)), among, strict=True):
            if ids:
                best = nearest(queries[np.asarray([row])], self.vectors, self.among(ids), k, **how)
                found[row, : best[0].shape[1]], score[row, : best[1].shape[1]] = best[0][0], best[1][0]
        return found, score

    def update(self, ids: Sequence[str], vectors: Tensor | np.ndarray) -> None:
        """Give passages other vectors [n, D], as while their encoder is trained; nobody made all of them any more."""
        if not isinstance(self.vectors, Tensor):
            self.vectors = torch.as_tensor(self.vectors[np.arange(len(self.passages))])
        rows = torch.as_tensor([self.rows[id] for id in ids])
        self.vectors[rows.to(self.vectors.device)] = torch.as_tensor(vectors).detach().to(self.vectors)
        self.made_by = {}

    def save(self, folder: Path) -> None:
        """See `Retrieves`: the vectors are in ``vectors.npy``, float32."""

        def fill(filling: Path) -> None:
            whole = torch.as_tensor(self.vectors[np.arange(len(self.passages))]).float().cpu().numpy()
            np.save(filling / "vectors.npy", whole, allow_pickle=False)

        write_index(folder, "vectors", self.made_by, self.passages, fill)

    @classmethod
    def load(cls, folder: Path, made_by: Mapping[str, str] | None = None, **more: Any) -> VectorIndex:
        """The index of a folder; its vectors are read when they are needed.

        Args:
            folder: that `save` wrote.
            made_by: on what the vectors have to depend; None takes any.
            more: arguments of the constructor.

        Raises:
            UserError: if it is no such folder, damaged, or made by something else, which is named.
        """
        passages, noted = read_index(folder, "vectors", made_by)
        vectors = np.load(Path(folder) / "vectors.npy", mmap_mode="r", allow_pickle=False)
        return cls(passages, vectors, noted, **more)


class Retriever(ABC):
    """How an index is made, in plain values."""

    @property
    @abstractmethod
    def made_by(self) -> dict[str, str]:
        """On what an index depends beside its passages: weights, too, which may change where a name does not."""

    @abstractmethod
    def index(self, passages: Sequence[Passage]) -> Index:
        """The index of a collection: of what can be read; made once, and kept in the cache for the next time."""

    @abstractmethod
    def load(self, folder: Path) -> Index:
        """The index that was saved in a folder.

        Raises:
            UserError: if it is no such folder, damaged, or was made otherwise than this retriever would.
        """


def readable(passages: Sequence[Passage]) -> list[Passage]:
    """Those that say something: nothing can find the others."""
    return [passage for passage in passages if passage.readable]
