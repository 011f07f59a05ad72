"""A signal to one of several processes ends the run of all, at the same step.

Lightning broadcasts from within the signal handler, and from rank 0 alone: a signal to another rank hangs all of them.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lm.steps.lightning_private import ask_before_every_batch, note_sigterm


class StopTogether(Callback):
    """With several ranks: a SIGTERM is told to all of them before the next batch; one rank stops as Lightning does."""

    def __init__(self) -> None:
        self.asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signal over from Lightning, which has just registered its own handler."""
        self.asked = False
        if trainer.world_size > 1 and dist.is_initialized() and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)
            ask_before_every_batch(trainer, lambda: self._stop_if_any(trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where nothing is saved at the end, a rank that is told to stop does, and its launcher ends the others."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for `test`."""
        self.on_test_start(trainer, pl_module)

    def _note(self, *_: Any) -> None:
        self.asked = True

    def _stop_if_any(self, trainer: Trainer) -> None:
        """Every rank asks before every batch."""
        flag = torch.tensor(int(self.asked), device=trainer.strategy.root_device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        if flag:
            note_sigterm(trainer)
            raise SIGTERMException
