"""Exact nearest neighbours by inner product, block by block: any collection on any device.

Products are summed in float64 and rounded to float32, so that ids and scores do not depend on the sizes of the blocks
or on the device. Equal scores are ordered by document id, descending as strings, as trec_eval does. This file does not
know what the vectors stand for.

Shape suffixes: Q queries, C documents of a block, K neighbours, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from text.errors import UserError


class Vectors(Protocol):
    """Vectors that are read when they are needed: an array, a tensor, a memory map, a store of embeddings."""

    def __len__(self) -> int:
        """Number of vectors."""
        ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray | Tensor:
        """The vectors with these numbers, float32 [n, D]."""
        ...


def by_id(ids: Sequence[str]) -> np.ndarray:
    """Positions of documents in the order in which equal scores come, int64 [C]: by id, descending."""
    return np.asarray(sorted(range(len(ids)), key=ids.__getitem__, reverse=True), np.int64)


def nearest(
    queries: Vectors,
    documents: Vectors,
    order: np.ndarray,
    k: int,
    *,
    block: int = 4096,
    device: torch.device | str = "cpu",
    precision: Literal["float64", "float32"] = "float64",
) -> tuple[np.ndarray, np.ndarray]:
    """The k documents of largest inner product with each query, best first.

    Args:
        queries: Q vectors.
        documents: the collection.
        order: positions of the documents that are searched, all or some of them; of equal scores the earlier is first.
            See `by_id`.
        k: how many are wanted; a smaller collection gives all of it.
        block: queries, and documents, that are multiplied at once: memory grows with its square.
        device: where it is done.
        precision: in which products are summed. float32 is faster on some GPUs, and its last bits depend on the block.

    Returns: positions of the documents, int64 [Q, K], and scores, float32 [Q, K].

    Raises:
        UserError: without documents, or if a vector is not finite.
    """
    if len(order) == 0:
        raise UserError("there is no document to search")
    k = min(k, len(order))
    dtype = getattr(torch, precision)
    found = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for first in range(0, len(queries), block):
        rows = np.arange(first, min(first + block, len(queries)))
        query_QD = torch.as_tensor(queries[rows]).to(device, dtype)
        score_QK = torch.empty(len(rows), 0, device=device)
        place_QK = torch.empty(len(rows), 0, dtype=torch.int64, device=device)
        for start in range(0, len(order), block):
            part = torch.as_tensor(documents[order[start : start + block]]).to(device, dtype)
            score_QC = (query_QD @ part.T).float()
            place_QC = torch.arange(start, start + len(part), device=device).expand(len(rows), -1)
            score_QK, place_QK = _best(torch.cat([score_QK, score_QC], 1), torch.cat([place_QK, place_QC], 1), k)
        score_QK, by_score = score_QK.sort(dim=1, descending=True, stable=True)
        found[rows] = order[place_QK.gather(1, by_score).cpu().numpy()]
        scores[rows] = score_QK.cpu().numpy()
    if not np.isfinite(scores).all():  # of all products, for what is not a number counts as the largest
        raise UserError(
            "a vector of a query or of a passage is not finite: the weights of its encoder are broken, or it does not "
            "bear 16 bits"
        )
    return found, scores


def _best(score_QC: Tensor, place_QC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row, by place; of equals at the edge the earlier ones, which `topk` does not promise."""
    if score_QC.shape[1] <= k:
        return score_QC, place_QC
    kept = score_QC.topk(k, dim=1).indices
    edge_Q1 = score_QC.gather(1, kept).amin(dim=1, keepdim=True)
    crowded = (score_QC >= edge_Q1).sum(dim=1) > k
    if crowded.any():
        kept[crowded] = score_QC[crowded].sort(dim=1, descending=True, stable=True).indices[:, :k]
    kept = kept.sort(dim=1).values
    return score_QC.gather(1, kept), place_QC.gather(1, kept)
