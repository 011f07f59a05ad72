"""Means that are exact over micro-batches and ranks: the loss of an optimizer step, and what is logged beside it.

A mean of micro-batch means weighs tokens of short batches more; so sums are back-propagated, and gradients are divided
by the global count once, before they are clipped. Of several means in one step the counts are known beforehand, and
each sum is divided by its own. Knows tensors and ranks, nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from text.errors import UserError

NOMINAL = 4096.0
"""Sums are divided by this before the backward pass and gradients multiplied back: keeps float16 in its range."""

HIDDEN = (
    "the strategy hides gradients (DeepSpeed's ZeRO does), so that they cannot be divided by the number of tokens that "
    "all ranks and micro-batches have scored: use --config configs/trainer/fsdp.yaml"
)


@dataclass
class StepMean:
    """Sums over one optimizer step.

    Args:
        micro_batches: how many micro-batches the trainer averages in a full step.
        world_size: how many ranks the strategy averages gradients over.
    """

    micro_batches: int
    world_size: int
    total: Tensor | float = 0.0
    weight: Tensor | float = 0
    tokens: int = 0
    totals_known: bool = False
    means: int = 0
    """Of the present micro-batch."""

    @property
    def alone(self) -> bool:
        """One micro-batch on one rank: its mean is the mean, and gradients need no pass over memory."""
        return self.micro_batches == 1 and self.world_size == 1

    @property
    def is_empty(self) -> bool:
        """No micro-batch of a new step has been taken in."""
        return isinstance(self.total, float)

    def begin(self) -> None:
        """A micro-batch begins."""
        self.means = 0

    def add(
        self, losses: Tensor, weights: Tensor | None = None, total: Tensor | None = None, factor: float = 1.0
    ) -> Tensor:
        """Take in a micro-batch; returns the scalar to back-propagate, which the trainer divides by ``micro_batches``.

        Args:
            losses: one per token or pair, any shape.
            weights: of the same shape; None counts each loss once.
            total: the sum of the weights over the whole step; needed by each of several means.
            factor: of this mean beside others.

        Raises:
            ValueError: for several means, one of them without its ``total``.
        """
        self.means += 1
        mixed = not self.is_empty and self.totals_known != (total is not None)
        if mixed or (total is None and (self.means > 1 or factor != 1.0)):
            raise ValueError("one mean of a step may leave out its total: give that of each of several (step_total)")
        self.totals_known = total is not None
        loss, weight = (losses.sum(), losses.numel()) if weights is None else ((losses * weights).sum(), weights.sum())
        if total is not None:
            part = loss * factor / _positive(total)
            self.total = self.total + part.detach()
            return part * (self.micro_batches * self.world_size)
        self.total = self.total + loss.detach()
        self.weight = self.weight + weight
        return loss / _positive(weight) if self.alone else loss * (self.micro_batches / NOMINAL)

    def finish(self, gradients: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor | int]:
        """Turn gradients of sums into the gradient of the mean, in place, and make room for the next step.

        Counts what was added, not what was planned: the last, incomplete step of an epoch is exact too. With nothing
        scored anywhere, gradients are zero and so is the mean. Where totals were known, gradients are right already.

        Returns: the mean, or the sum of several, and the number of tokens computed, over all micro-batches and ranks;
            not synchronised with the host.

        Raises:
            UserError: if the strategy keeps gradients where they cannot be divided.
        """
        total, weight, tokens = self.total, self.weight, cast("Tensor | int", self.tokens)
        self.total, self.weight, self.tokens = 0.0, 0, 0
        if self.world_size > 1:
            mine = [torch.as_tensor(x, dtype=torch.float64, device=device) for x in (total, weight, tokens)]
            dist.all_reduce(sums := torch.stack(mine))
            total, weight, tokens = sums[0], sums[1], sums[2]
        if not self.alone and not self.totals_known:
            if not gradients:
                raise UserError(HIDDEN)
            local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
            # the strategy has averaged over ranks, so a sum over ranks is that average times their number
            torch._foreach_mul_(local, NOMINAL * self.world_size / _positive(weight))
        return torch.as_tensor(total / _positive(weight), device=device), tokens


class Means:
    """Weighted means of named quantities over the batches of a step or an epoch, on all ranks."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, weights: Tensor | None = None) -> None:
        """Take in some values of a quantity; every rank names the same quantities in the same order.

        Args:
            name: of the quantity.
            values: any shape; nothing is back-propagated through them.
            weights: of the same shape; None counts each value once.
        """
        values = values.detach().double()
        weights = torch.ones_like(values) if weights is None else weights.detach().double()
        sums = torch.stack([(values * weights).sum(), weights.sum()])
        self._sums[name] = self._sums.get(name, 0) + sums

    def finish(self, world_size: int) -> dict[str, Tensor]:
        """The means by name, nan where nothing was counted; begins anew."""
        names, sums = list(self._sums), list(self._sums.values())
        self._sums = {}
        if not names:
            return {}
        totals = torch.stack(sums)
        if world_size > 1:
            dist.all_reduce(totals)
        return {name: (total / weight).float() for name, (total, weight) in zip(names, totals, strict=True)}


def _positive(weight: Tensor | float) -> Tensor | float:
    """The divisor; 1 where there is nothing to divide."""
    return torch.where(weight > 0, weight, 1) if isinstance(weight, Tensor) else (weight or 1)
