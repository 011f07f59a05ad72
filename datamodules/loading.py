"""Loaders that resume exactly, because they keep no position of their own.

A batch is a pure function of where training stands, and that the trainer knows: it restores its counters from any
checkpoint, also from one written in the middle of an epoch or by an exception, so a second count could only disagree.
So the next batches can be made while a step is computed: one that is never asked for is forgotten, and nobody knows.
This file does not know what a batch is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Trainer

from lm.steps.lightning_private import batches_done
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
    counters exact. The loader itself works ahead: while a step is computed, a thread makes the batches that the next
    steps will ask for. Iterated without a trainer, the loader yields one epoch from the beginning.

    Args:
        batch_at: the batch of this rank at a position. It runs in a thread, one call at a time: it must not draw from a
            global random generator, nor depend on anything that training changes.
        length: micro-batches of an epoch, the same on every rank.
        trainer: whose counters are read.
        accumulation: micro-batches of an optimizer step; only counts without a trainer.
        ahead: batches that are made before they are asked for, and held; 0 makes each when it is.
    """

    def __init__(
        self,
        batch_at: Callable[[Position], Any],
        length: int,
        trainer: Trainer | None = None,
        accumulation: int = 1,
        ahead: int = 2,
    ):
        self.batch_at = batch_at
        self.length = length
        self.trainer = trainer
        self.accumulation = accumulation
        self.ahead = ahead
        self._thread = ThreadPoolExecutor(1, "next batch")  # starts with the first batch, ends with the loader
        self._made: dict[Position, Future[Any]] = {}

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        trainer = self.trainer
        try:
            if trainer is None:
                for index in range(self.length):
                    yield self._take(Position(index, index, index // self.accumulation))
                return
            while True:  # the trainer counts, and stops
                yield self._take(self._position(trainer))
        finally:
            if trainer is None or trainer.interrupted:  # an epoch that ends leaves the next one its first batches
                self._forget()

    def rest_of_step(self) -> list[Any]:
        """The micro-batches of this rank that follow the current one within its optimizer step.

        A loss with two denominators (pairs and tokens, say) has to know both before its first backward pass. The
        batches are kept until training asks for them, so none is made twice.
        """
        if self.trainer is None:
            return []
        position, accumulation = self._position(self.trainer), self.trainer.accumulate_grad_batches
        end = position.in_epoch - position.in_epoch % accumulation + accumulation
        further = min(end, int(self.trainer.num_training_batches)) - position.in_epoch - 1
        rest = [self._make(later) for later in islice(self._after(position), further)]
        return [batch.result() for batch in rest]

    def _take(self, position: Position) -> Any:
        """The batch at a position; those after it are on their way."""
        accumulation = self.accumulation if self.trainer is None else self.trainer.accumulate_grad_batches
        coming = [*islice(self._after(position), max(self.ahead, accumulation))]
        self._forget(but=[position, *coming])
        for wanted in [position, *coming[: self.ahead]]:
            self._make(wanted)
        return self._made.pop(position).result()

    def _make(self, position: Position) -> Future[Any]:
        """Have the batch at a position made, unless it was asked for before."""
        if position not in self._made:
            self._made[position] = self._thread.submit(self.batch_at, position)
        return self._made[position]

    def _forget(self, but: Sequence[Position] = ()) -> None:
        """Let go of batches that nobody will ask for."""
        for position in self._made.keys() - set(but):
            self._made.pop(position).cancel()

    def _after(self, at: Position) -> Iterator[Position]:
        """The positions that training reaches next, until it ends."""
        trainer = self.trainer
        if trainer is None:
            for index in range(at.number + 1, self.length):
                yield Position(index, index, index // self.accumulation)
            return
        epoch, length = trainer.current_epoch, int(trainer.num_training_batches)
        while True:
            in_epoch = (at.in_epoch + 1) % length
            step = at.step + (in_epoch % trainer.accumulate_grad_batches == 0)  # it also ends with the epoch
            epoch += in_epoch == 0
            if epoch == trainer.max_epochs or step == trainer.max_steps:
                return
            at = Position(at.number + 1, in_epoch, step)
            if trainer.overfit_batches:
                at = Position(in_epoch, in_epoch, in_epoch // trainer.accumulate_grad_batches)
            yield at

    def _position(self, trainer: Trainer) -> Position:
        """Where training stands; with `overfit_batches` every epoch is the first one again."""
        total, current = batches_done(trainer)
        if trainer.overfit_batches:
            return Position(current, current, current // trainer.accumulate_grad_batches)
        return Position(total, current, trainer.global_step)

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


def require_free_choice(trainer: Trainer, option: str) -> None:
    """Refuse to choose how many micro-batches an optimizer step has where somebody counts on a number.

    Args:
        trainer: who will be told.
        option: that asks for the choice.

    Raises:
        UserError: naming the option of the trainer that says otherwise.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if trainer.accumulate_grad_batches != 1:
        raise UserError(f"{option} chooses trainer.accumulate_grad_batches: leave that out")
    if "DeepSpeed" in type(trainer.strategy).__name__:
        raise UserError(f"{option}: DeepSpeed must know accumulate_grad_batches beforehand: give that instead")
    for name in ("val_check_interval", "limit_train_batches"):
        if isinstance(number := getattr(trainer, name), int) and number > 1:
            raise UserError(f"{option}: trainer.{name} {number} counts micro-batches: give a share of the epoch (0.25)")


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
