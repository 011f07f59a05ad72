"""Forests written out as ordinary rows, one per leaf: for models without tree masks, and to check those that have them.

What a forest shares is then computed once per leaf, which may be many times its tokens: rows come in batches. This file
knows integers, no model.

Legend: T tokens of a forest, R rows, S their length, N predictions, W states that are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lm.forests.length_batches import length_batches


class Reads(NamedTuple):
    """What is read of the hidden states of a forest.

    Args:
        sources: [N + W] int64; rows of the forest. The first N predict a token, the states of the others are wanted.
        targets: [N] int64; the tokens that are predicted.
    """

    sources: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Rows:
    """Rows padded on the right; plain causal attention is right for them without a mask: padding comes after all else.

    Attributes:
        input_ids: [R, S] int64, padded with 0.
        lengths: [R] int64.
        sources: [N + W] int64, indices into the R * S hidden states; the first N predict, the others are wanted.
        targets: [N] int64.
    """

    input_ids: Tensor
    lengths: Tensor
    sources: Tensor
    targets: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, position_ids: Tensor, subtree_end: Tensor, reads: Reads) -> Rows:
        """The rows of a forest, by its tensors on the host [T], [T], [T]; see `lm.forests.forest.Forest`."""
        ids, depths, ends = (t.tolist() for t in (input_ids, position_ids, subtree_end))
        rows: list[Tensor] = []
        leaves: list[int] = []
        path: list[int] = []
        for row, (token, depth, end) in enumerate(zip(ids, depths, ends, strict=True)):
            del path[depth:]
            path.append(token)
            if end == row + 1:
                leaves.append(row)
                rows.append(torch.tensor(path))
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        padded = pad_sequence(rows, batch_first=True) if rows else input_ids.view(0, 0)
        # The first leaf at or after a row, depth-first, lies below it.
        row_of = torch.searchsorted(torch.tensor(leaves, dtype=torch.int64), reads.sources)
        return cls(padded, lengths, row_of * padded.shape[1] + position_ids[reads.sources], reads.targets)

    def to(self, device: torch.device | str) -> Rows:
        """A copy on `device`."""
        return Rows(
            *(t.to(device, non_blocking=True) for t in (self.input_ids, self.lengths, self.sources, self.targets))
        )

    def batches(self, max_tokens: int) -> list[tuple[Rows, Tensor]]:
        """Rows of like length together, the longest first.

        Args:
            max_tokens: of a batch, padding included; a longer row has a batch to itself.

        Returns: the rows of each batch, and which of the N + W reads are theirs [n + w], in ascending order.
        """
        width = self.input_ids.shape[1]
        row_of, column_of = self.sources // max(width, 1), self.sources % max(width, 1)
        made = []
        for numbers in length_batches(self.lengths.numpy(), max_tokens):
            place_R = torch.full((len(self.lengths),), -1).index_copy_(
                0, torch.tensor(numbers), torch.arange(len(numbers))
            )
            lengths = self.lengths[numbers]
            mine = (place_R[row_of] >= 0).nonzero().flatten()
            longest = int(lengths.max())
            sources = place_R[row_of[mine]] * longest + column_of[mine]
            targets = self.targets[mine[mine < len(self.targets)]]
            made.append((Rows(self.input_ids[numbers, :longest], lengths, sources, targets), mine))
        return made
