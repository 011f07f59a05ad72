"""Batches that are not forests: dense rows of token ids for pretraining.

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
