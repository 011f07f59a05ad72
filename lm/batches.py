"""Batches that are not forests: dense rows of token ids for pretraining, padded texts for encoders.

A batch is plain tensors and says nothing of where its text came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class TokenRows:
    """Rows of equal length, without padding: every position predicts the next one.

    Args:
        input_ids: token ids [B, S], int64.
    """

    input_ids: Tensor

    def __len__(self) -> int:
        """Number of rows B."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenRows:
        """The same rows on another device."""
        return TokenRows(self.input_ids.to(device, non_blocking=non_blocking))


@dataclass
class TextBatch:
    """Texts for an encoder, padded on the right to the longest.

    Args:
        input_ids: token ids [B, L], int64.
        attention_mask: 1 at tokens, 0 at padding [B, L], int64.
        content_from: the first token of each row that is the text itself, after an instruction or a prefix [B], int64.
        rows: which text each row is, for whoever made the batch [B], int64.
    """

    input_ids: Tensor
    attention_mask: Tensor
    content_from: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Number of texts B."""
        return self.input_ids.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> TextBatch:
        """Some of the texts, without the columns that are padding in all of them."""
        mask = self.attention_mask[rows]
        width = int(mask.sum(dim=1).amax())
        return TextBatch(self.input_ids[rows, :width], mask[:, :width], self.content_from[rows], self.rows[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextBatch:
        """The same texts on another device."""
        parts = (self.input_ids, self.attention_mask, self.content_from, self.rows)
        return TextBatch(*(part.to(device, non_blocking=non_blocking) for part in parts))


@dataclass
class ContrastiveBatch:
    """Queries and the documents they are trained with.

    Args:
        queries: B texts.
        documents: the B positives in the order of the queries, then N hard negatives of each query in turn.
        document_keys: equal for equal documents [B (1 + N)], int64, never 0.
        positive_keys: of all known positives of each query [B, P], int64, padded with 0.
        teacher_scores: of a teacher for each query's positive and hard negatives [B, 1 + N], or None.
    """

    queries: TextBatch
    documents: TextBatch
    document_keys: Tensor
    positive_keys: Tensor
    teacher_scores: Tensor | None = None

    def __len__(self) -> int:
        """Number of queries B."""
        return len(self.queries)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ContrastiveBatch:
        """The same batch on another device."""
        parts = (self.queries, self.documents, self.document_keys, self.positive_keys, self.teacher_scores)
        return ContrastiveBatch(*(p if p is None else p.to(device, non_blocking=non_blocking) for p in parts))  # type: ignore[arg-type]
