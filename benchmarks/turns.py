"""Several trainers in one process that take turns, step by step, so that a busy moment hits all of them alike.

A turn is a whole round of a trainer's loop: the step, what it logs, and getting the next batch. While one trainer has
its turn the others wait, each in a Python thread of its own, which costs nothing. Used by benchmarks/preference.py and
benchmarks/rationales.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from accelerate.state import GradientState
from lightning.pytorch import Callback
from torch import Tensor
from transformers import TrainerCallback

from benchmarks.clock import now

OURS = "ours"


class Turns:
    """Who may take a step, and how long steps took.

    Args:
        names: of the trainers, in the order of their turns. None begins before all have come to their first step.

    Attributes:
        seconds: of each trainer's turns; the first warms up.
        losses: of each trainer's steps; where its loop splits a step, the mean over the parts.
        batches: that each trainer was given, the parts of its steps one by one.
    """

    def __init__(self, names: Sequence[str]):
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self.losses: dict[str, list[Tensor]] = {name: [] for name in names}
        self.batches: dict[str, list[Any]] = {name: [] for name in names}
        self._order = list(names)
        self._missing = set(names)
        self._changed = threading.Condition()
        self._began: dict[str, float] = {}
        self._failed: BaseException | None = None

    def step(self, name: str) -> None:
        """A trainer is about to take a step: its turn is over, and the next begins when the others had theirs."""
        with self._changed:
            self._missing.discard(name)
            self._stop(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failed or (not self._missing and self._order[0] == name))
            if self._failed:
                raise RuntimeError("another trainer failed") from self._failed
            self._began[name] = now()

    def leave(self, name: str) -> None:
        """A trainer has taken its last step."""
        with self._changed:
            self._stop(name)
            self._order.remove(name)
            self._changed.notify_all()

    def _stop(self, name: str) -> None:
        if name in self._began:
            self.seconds[name].append(now() - self._began.pop(name))
            self._order.append(self._order.pop(0))

    def run(self, ours: Callable[[], Any], others: Sequence[Callable[[], Any]]) -> None:
        """Run all trainers to their end; ours in this thread, which is where Lightning wants to be."""
        threads = [threading.Thread(target=self._guarded, args=(other,), daemon=True) for other in others]
        for thread in threads:
            thread.start()
        self._guarded(ours)
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed

    def _guarded(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:  # it would be lost in a thread, and leave the others waiting
            with self._changed:
                self._failed = self._failed or error
                self._changed.notify_all()


class OurSteps(Callback):
    """Takes turns for our Lightning trainer; without accumulation a batch is a step."""

    turns: ClassVar[Turns]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Wait for the turn."""
        self.turns.batches[OURS].append(batch)
        self.turns.step(OURS)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Keep the loss."""
        self.turns.losses[OURS].append(outputs["loss"].detach())

    def on_train_end(self, *_: Any) -> None:
        """No more turns."""
        self.turns.leave(OURS)


class TheirSteps(TrainerCallback):
    """Takes turns for a trainer of Hugging Face."""

    def __init__(self, turns: Turns, name: str):
        self.turns, self.name = turns, name

    def keep_losses(self, trainer: Any) -> Any:
        """The same trainer, which keeps the loss of every step: the mean over its micro-batches."""
        compute, parts = trainer.compute_loss, []

        def kept(model: Any, inputs: Any, **kwargs: Any) -> Any:
            self.turns.batches[self.name].append(dict(inputs))
            loss = compute(model, inputs, **kwargs)
            parts.append(loss.detach())
            if len(parts) == trainer.args.gradient_accumulation_steps:
                self.turns.losses[self.name].append(sum(parts) / len(parts))
                parts.clear()
            return loss

        trainer.compute_loss = kept
        return trainer

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the turn; whether a micro-batch is the last of its step is kept in one place for all trainers."""
        state = GradientState()
        last = state.sync_gradients
        self.turns.step(self.name)
        state._set_sync_gradients(last)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """No more turns."""
        self.turns.leave(self.name)
