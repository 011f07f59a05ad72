"""The shape of a space of embeddings: are pairs close, is the whole spread out, and has it moved? (arXiv 2005.10242).

Knows vectors of length 1. It does not know what they stand for.

Legend: N vectors or pairs, D their width.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 2.0
"""t of the Gaussian potential in the uniformity (2005.10242, eq. 3)."""


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
