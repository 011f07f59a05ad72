"""Contrastive losses of bi-encoders: one positive per query against every other document at hand.

Pure functions of embeddings and scores. They do not know what encoded the texts, nor from which rank a document came:
gathering, like the choice of negatives, is done before.

Shape suffixes: B queries, M documents (the B positives among them), D embedding width, P known positives of a query,
K candidates that a teacher scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NO_DOCUMENT = 0
"""Key that pads ``positive_keys``; no document has it."""


def info_nce(scores_BM: Tensor, labels_B: Tensor, excluded_BM: Tensor | None = None) -> Tensor:
    """Cross-entropy of picking the positive (arXiv 1807.03748 eq. 4; with hard negatives arXiv 2004.04906 eq. 2).

    Args:
        scores_BM: similarities divided by the temperature.
        labels_B: the column of each query's positive, int64.
        excluded_BM: bool, columns that are no negatives of a row; its own positive is never left out.

    Returns: losses in nats, shape [B], float32 or wider.
    """
    scores_BM = _wide(scores_BM)
    if excluded_BM is not None:
        own_BM = F.one_hot(labels_B, scores_BM.shape[1]).bool()
        scores_BM = scores_BM.masked_fill(excluded_BM & ~own_BM, float("-inf"))
    return F.cross_entropy(scores_BM, labels_B, reduction="none")


def similarities(query_BD: Tensor, document_MD: Tensor) -> Tensor:
    """Products of queries and documents [B, M], in float32 or wider, also under autocast.

    Divided by a temperature of 0.05, what bfloat16 rounds off a cosine near 1 is a tenth of a nat.
    """
    with torch.autocast(query_BD.device.type, enabled=False):
        return _wide(query_BD) @ _wide(document_MD).T


def known_positives(document_keys_M: Tensor, positive_keys_BP: Tensor) -> Tensor:
    """Columns that hold a document known to answer a query, bool [B, M]: not to be pushed away from it.

    Decided by the document alone. Passages of the same query under another instruction are the negatives that teach a
    retriever to read instructions, so a shared query text excludes nothing.

    Args:
        document_keys_M: int64, equal for equal documents.
        positive_keys_BP: int64 keys of all known positives of each query, padded with `NO_DOCUMENT`.
    """
    return (document_keys_M[None, :, None] == positive_keys_BP[:, None, :]).any(dim=-1)


def too_close(similarity_BM: Tensor, labels_B: Tensor, margin: float) -> Tensor:
    """Columns more similar to a query than its positive less ``margin``: likely unlabelled positives, bool [B, M].

    Positive-aware mining (arXiv 2407.15831, section 3.1), decided without gradient.

    Args:
        similarity_BM: before the division by the temperature.
        labels_B: the column of each query's positive, int64.
        margin: how much less similar a negative has to be.
    """
    similarity_BM = _wide(similarity_BM.detach())
    return similarity_BM > similarity_BM.gather(1, labels_B[:, None]) - margin


def distillation(scores_BK: Tensor, teacher_BK: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) over the same candidates, nats, shape [B] (arXiv 2112.01488, section 3.2).

    Args:
        scores_BK: the student's similarities divided by its temperature.
        teacher_BK: the teacher's scores.
        temperature: divides the teacher's scores.

    Returns: divergences, float32 or wider.
    """
    student_BK = F.log_softmax(_wide(scores_BK), dim=-1)
    target_BK = F.log_softmax(teacher_BK.to(student_BK.dtype) / temperature, dim=-1)
    return F.kl_div(student_BK, target_BK, reduction="none", log_target=True).sum(dim=-1)


def matryoshka(
    loss: Callable[..., Tensor], embeddings: Sequence[Tensor], dims: Sequence[int], weights: Sequence[float]
) -> Tensor:
    """Weighted mean of a loss over prefixes of the embeddings, normalised anew (arXiv 2205.13147 eq. 1).

    Args:
        loss: of as many embedding tensors as are given.
        embeddings: each [*, D].
        dims: how many leading dimensions each term sees.
        weights: of each term.
    """
    terms = [
        weight * loss(*(F.normalize(x[..., :dim], dim=-1) for x in embeddings))
        for dim, weight in zip(dims, weights, strict=True)
    ]
    return torch.stack(terms).sum(dim=0) / sum(weights)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
