"""Loaders that resume exactly, because they keep no position of their own.

A batch is a pure function of where training stands, and that the trainer knows: it restores its counters from any
checkpoint, also from one written in the middle of an epoch or by an exception, so a second count could only disagree.
This file does not know what a batch is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Trainer

from text.errors import UserError


class Position(NamedTuple):
    """Where training stands when it asks for a batch.

    Args:
        number: micro-batches that this rank has finished since training began. Lightning's own epoch would not do: a
            run that `max_steps` ends within an epoch counts it as a whole one.
        in_epoch: those of this epoch, where gradient accumulation starts anew.
        step: optimizer steps finished.
    """

    number: int
    in_epoch: int
    step: int


class ResumableLoader:
    """Batches by position, for training under Lightning or by hand.

    Lightning asks a loader with a length for one batch at a time and never ahead, which is what makes the trainer's
    counters exact. Iterated without a trainer, the loader yields one epoch from the beginning.

    Args:
        batch_at: the batch of this rank at a position. It must not draw from a global random generator.
        length: micro-batches of an epoch, the same on every rank.
        trainer: whose counters are read.
        accumulation: micro-batches of an optimizer step; only counts without a trainer.
    """

    def __init__(
        self,
        batch_at: Callable[[Position], Any],
        length: int,
        trainer: Trainer | None = None,
        accumulation: int = 1,
    ):
        self.batch_at = batch_at
        self.length = length
        self.trainer = trainer
        self.accumulation = accumulation
        self._made: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        if self.trainer is None:
            for index in range(self.length):
                yield self.batch_at(Position(index, index, index // self.accumulation))
            return
        while True:  # the trainer counts, and stops
            position = self._position(self.trainer)
            batch = self._made.pop(position.number, None)
            yield self.batch_at(position) if batch is None else batch

    def rest_of_step(self) -> list[Any]:
        """The micro-batches of this rank that follow the current one within its optimizer step.

        A loss with two denominators (pairs and tokens, say) has to know both before its first backward pass. The
        batches are kept until training asks for them, so none is made twice.
        """
        if self.trainer is None:
            return []
        total, current, step = self._position(self.trainer)
        accumulation = self.trainer.accumulate_grad_batches
        end = min(current - current % accumulation + accumulation, int(self.trainer.num_training_batches))
        for ahead in range(1, end - current):
            if total + ahead not in self._made:
                self._made[total + ahead] = self.batch_at(Position(total + ahead, current + ahead, step))
        return [self._made[total + ahead] for ahead in range(1, end - current)]

    def _position(self, trainer: Trainer) -> Position:
        """Where training stands; with `overfit_batches` every epoch is the first one again."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        current = progress.current.completed
        if trainer.overfit_batches:
            return Position(current, current, current // trainer.accumulate_grad_batches)
        return Position(progress.total.completed, current, trainer.global_step)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint has to remember: only how the trainer's counters are to be read."""
        return {"batches_per_epoch": self.length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Refuse a checkpoint whose counters mean something else.

        Raises:
            UserError: if an epoch had another number of micro-batches.
        """
        if (before := state["batches_per_epoch"]) != self.length:
            raise UserError(
                f"the checkpoint counts {before} batches in an epoch, this run {self.length}: go on with the same data,"
                " batch size and accumulate_grad_batches, or start a new run from its weights"
            )


@lru_cache(maxsize=4)
def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``n`` things in an epoch [n] int64: a pure function of its arguments."""
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.flags.writeable = False
    return order


def shares(n: int, rank: int, world_size: int, most: int) -> list[range]:
    """This rank's batches of ``n`` things: all of them once over the ranks, as many batches on every rank.

    Batches have at most ``most`` things, unless there are so few that a rank would have to go without.

    Raises:
        UserError: with fewer things than ranks.
    """
    if n < world_size:
        raise UserError(f"{n} rows cannot be shared by {world_size} ranks")
    batches = max(1, min(-(-n // (world_size * most)), n // world_size))
    edges = [n * part // (batches * world_size) for part in range(batches * world_size + 1)]
    return [range(edges[part], edges[part + 1]) for part in range(rank, batches * world_size, world_size)]


def layout(trainer: Trainer | None, batch_size: int | None = None) -> tuple[int, int, int]:
    """Accumulated micro-batches, this rank, ranks that see different data.

    Args:
        trainer: whose layout it is; None is one rank without accumulation.
        batch_size: what an optimizer step takes over all of them, if it has to be divided.

    Raises:
        UserError: if it cannot be divided evenly.
    """
    if trainer is None:
        return 1, 0, 1
    ranks = trainer.distributed_sampler_kwargs or {}
    accumulation, world_size = trainer.accumulate_grad_batches, ranks.get("num_replicas", 1)
    if batch_size is not None and batch_size % (accumulation * world_size):
        near = max(batch_size // (accumulation * world_size), 1) * accumulation * world_size
        raise UserError(
            f"batch_size {batch_size} is that of an optimizer step over all devices: it must be a multiple"
            f" of {world_size} ranks x {accumulation} accumulated batches, such as {near}"
        )
    return accumulation, ranks.get("rank", 0), world_size
