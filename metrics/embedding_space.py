"""The shape of a space of embeddings: are pairs close, is the whole spread out, and has it moved? (arXiv 2005.10242).

Knows vectors of length 1. It does not know what they stand for.

Legend: N vectors or pairs, M look-ups, C passages, D their width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 2.0
"""t of the Gaussian potential in the uniformity (2005.10242, eq. 3)."""
PROBED = 2048
"""Vectors of a space that its shape is told by; of more, these are taken at equal distances."""


def alignment(one_ND: Tensor, other_ND: Tensor) -> Tensor:
    """Squared distance of each pair [N]; 0 is best, 2 that of pairs drawn by chance (2005.10242, eq. 2, alpha 2)."""
    return (one_ND.float() - other_ND.float()).square().sum(dim=1)


def uniformity(vectors_ND: Tensor) -> Tensor:
    """Log of the mean Gaussian potential of different vectors, a scalar; lower is more spread out (eq. 3)."""
    count = len(vectors_ND)
    if count < 2:
        return vectors_ND.new_zeros(())
    distances = torch.pdist(vectors_ND.float()).square()
    return distances.mul(-SHARPNESS).exp().mean().log()


def mean_cosine(vectors_ND: Tensor) -> Tensor:
    """Mean cosine of different vectors, a scalar: near 1 they are all in one narrow cone."""
    count = len(vectors_ND)
    if count < 2:
        return vectors_ND.new_zeros(())
    total = vectors_ND.float().sum(dim=0).square().sum()
    return (total - vectors_ND.float().square().sum()) / (count * (count - 1))


def drift(before_ND: Tensor, now_ND: Tensor) -> Tensor:
    """How far vectors have moved in all, as a share of how long they were, a scalar."""
    before = before_ND.float()
    return (now_ND.float() - before).norm() / before.norm()


def shape(queries_MD: Tensor, passages_CD: Tensor, gold_M: Tensor) -> dict[str, float]:
    """Shape of a space of sequences: look-ups beside passages, whatever their lengths.

    Args:
        queries_MD: states of look-ups.
        passages_CD: embeddings of passages.
        gold_M: int64, which passage each look-up should find; negative where there is none.

    Returns: ``alignment`` over the pairs of look-up and right passage; ``uniformity`` and ``mean_cosine`` of
        ``/queries`` and ``/passages``. What takes more vectors than there are is left out.
    """
    queries, passages = (F.normalize(vectors.float(), dim=1) for vectors in (queries_MD, passages_CD))
    found, known = dict[str, float](), gold_M >= 0
    if known.any():
        found["alignment"] = float(alignment(queries[known], passages[gold_M[known]]).mean())
    for name, vectors in (("queries", queries), ("passages", passages)):
        probed = spread(vectors)
        if len(probed) > 1:
            found[f"uniformity/{name}"] = float(uniformity(probed))
            found[f"mean_cosine/{name}"] = float(mean_cosine(probed))
    return found


def spread(rows: Tensor) -> Tensor:
    """At most `PROBED` of some rows, at equal distances."""
    return rows[:: max(1, -(-len(rows) // PROBED))]
