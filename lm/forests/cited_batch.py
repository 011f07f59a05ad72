"""Batches of answers that cite: a forest of rows, and what the states that it gives are compared with.

Plain tensors, which say nothing of where their text came from.

Legend: M look-ups, U different passages, P passages that one record cites.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lm.forests.forest import Forest


@dataclass
class CitedBatch:
    """Answers, and the passages that they cite or should not cite.

    Args:
        forest: paths whose tokens are scored, or whose last state is wanted: those of look-ups [M], in the order of the
            records; behind them those of passages [U], unless these are in forests of their own.
        passages: forests of passages, whose wanted states are those of the passages in order; none where passages are
            among the answers, or known already.
        labels: which of the passages each look-up finds [M], int64.
        passage_keys: equal for equal passages on all ranks, never 0 [U], int64.
        positive_keys: of all passages that the record of each look-up cites [M, P], int64, padded with 0.
        ids: of the records, for messages.
    """

    forest: Forest
    passages: tuple[Forest, ...]
    labels: Tensor
    passage_keys: Tensor
    positive_keys: Tensor
    ids: list[str]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CitedBatch:
        """The same batch on another device."""
        keys = (self.labels, self.passage_keys, self.positive_keys)
        labels, passage_keys, positive_keys = (part.to(device, non_blocking=non_blocking) for part in keys)
        forests = tuple(forest.to(device) for forest in self.passages)
        return CitedBatch(self.forest.to(device), forests, labels, passage_keys, positive_keys, self.ids)
