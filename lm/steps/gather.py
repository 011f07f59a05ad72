"""What all ranks have, on every rank: rows, differentiably, as negatives of one large batch; and finished results.

Knows ranks, not losses.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

K = TypeVar("K")
V = TypeVar("V")


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks in the order of ranks, [W n, ...]; every rank gives equally many.

    Gradients flow back to the rank that a row came from, summed over all ranks that used it. With a loss that is the
    mean over a rank's own rows, and gradients that DDP averages, W ranks train exactly like one with the whole batch.
    """
    if ranks()[1] == 1:
        return rows
    return _Gather.apply(rows)


def gather_unequal_rows(rows: Tensor) -> Tensor:
    """The same where ranks may give different numbers of rows, or none: those of all ranks, [sum of n, ...]."""
    if ranks()[1] == 1:
        return rows
    counts = gather_rows(torch.tensor([len(rows)], device=rows.device)).tolist()
    padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
    parts = gather_rows(torch.cat([rows, padding])).split(max(counts))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def merge_over_ranks(found: dict[K, V]) -> dict[K, V]:
    """What all ranks found, plain Python values, on every rank; of a key that two have, the later rank's value."""
    if ranks()[1] == 1:
        return found
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, found)
    return {key: value for part in parts for key, value in part.items()}


def ranks() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    at_work = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if at_work else (0, 1)


def from_rank_0(thing: V) -> V:
    """What the first rank has, a plain Python value, on every rank."""
    box = [thing]
    if ranks()[1] > 1:
        dist.broadcast_object_list(box)
    return box[0]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
