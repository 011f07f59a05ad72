"""Checkpoints that are whole or not there, at a point from which a run goes on exactly.

Lightning writes a file through the system's temporary folder (another disk, often a small one) and a sharded checkpoint
in place; here both are written beside their destination and renamed. A signal waits for the optimizer step to end:
gradients of a half-accumulated step are in no checkpoint. This file does not know what a checkpoint holds.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint file straight to its disk under another name, then renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Saves ``checkpoint``; on failure the file that was there before is still there.

        Raises:
            OSError: the disk is full, or another fault of the system (which torch reports as a RuntimeError).
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.writing")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
            os.replace(partial, path)
        except RuntimeError as error:
            if isinstance(fault := error.__context__, OSError):
                raise OSError(fault.errno, fault.strerror, str(path)) from error
            raise
        finally:
            partial.unlink(missing_ok=True)


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint, atomic for directories of shards too and exact when a signal arrives.

    SIGTERM and the first Ctrl-C let the optimizer step end, then save and stop; a second Ctrl-C stops at once.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes Ctrl-C over while a fit lasts."""
        super().setup(trainer, pl_module, stage)
        self._stop_requested = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._takes_interrupts = (
            stage == "fit" and in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._takes_interrupts:
            signal.signal(signal.SIGINT, self._stop_after_step)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives Ctrl-C back."""
        self._release_interrupts()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves, then gives Ctrl-C back."""
        try:
            super().on_exception(trainer, pl_module, exception)
        finally:
            self._release_interrupts()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time, and hands a waiting signal to Lightning once no gradient is half accumulated."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        signals = trainer._signal_connector
        self._stop_requested |= signals.received_sigterm
        signals.received_sigterm = self._stop_requested and not trainer.fit_loop._should_accumulate()

    def _stop_after_step(self, *_: object) -> None:
        self._release_interrupts()
        self._stop_requested = True

    def _release_interrupts(self) -> None:
        if getattr(self, "_takes_interrupts", False):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._takes_interrupts = False

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        path = Path(filepath)
        partial = path.with_name(f".{path.name}.partial")
        if trainer.is_global_zero:
            remove(partial)
        trainer.strategy.barrier()
        trainer.save_checkpoint(partial, self.save_weights_only)
        if trainer.is_global_zero:
            put_in_place(partial, path)
        trainer.strategy.barrier()
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)


def put_in_place(partial: Path, path: Path) -> None:
    """Renames a complete file or directory; a directory of shards that was there before goes last."""
    old = path.with_name(f".{path.name}.old")
    if path.is_dir():
        remove(old)
        os.replace(path, old)
    os.replace(partial, path)
    remove(old)


def remove(path: Path) -> None:
    """Deletes a file or a directory, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
