"""Checkpoints that are whole or not there, at a point from which a run goes on exactly.

Lightning writes a file through the system's temporary folder (another disk, often a small one) and a sharded checkpoint
in place; here both are written beside their destination and renamed. And Lightning saves half-accumulated steps and
half-run validations as they are; here they are saved as not begun. This file does not know what a model is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.optim import Optimizer

from lm.backbones.checkpoints import open_checkpoint
from lm.files.checkpoint_files import write_checksums
from lm.files.whole_folder import put_in_place, remove
from lm.steps.lightning_private import batch_is_underway, end_once, forget_what_is_half_done, straighten_validations
from lm.steps.nonfinite import NotFinite, trained_finite


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
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except RuntimeError as error:
            if isinstance(fault := error.__context__, OSError):
                raise OSError(fault.errno, fault.strerror, str(path)) from error
            raise
        finally:
            partial.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a file, or a directory of shards: what several ranks have saved goes on on one."""
        return open_checkpoint(Path(path)) if Path(path).is_dir() else super().load_checkpoint(path, *args, **kwargs)


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint, atomic for directories of shards too, from which a run goes on exactly.

    A checkpoint may be made while an optimizer step is half done (an exception, a signal, Ctrl-C) or with a validation
    still to come. Gradients and half a validation's sums are in no checkpoint, so it is written as if neither had
    begun. While weights are being changed nothing is saved: the checkpoint before is the one to go on from. So it is
    when a run has exploded: weights that are not finite, or that gave a loss that is not, never take its place. A
    checkpoint is deleted only once the weights of the next one have given a finite loss; so is what a run that was
    killed between two checkpoints left behind.
    """

    _last_checkpoint_saved: str
    _last_global_step_saved: int
    changing_weights = False
    validated = True
    outdated: tuple[str, ...] = ()  # checkpoints to be deleted, once those after them have proved good
    written: tuple[str, ...] = ()  # those of the last step that was saved since the run began or went on
    knows_its_files = False  # from the checkpoint that it goes on from
    gone_on_from = -1  # the step of the last checkpoint, as long as it says all that there is to say

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A batch begins: weights are those of the last optimizer step."""
        self.changing_weights = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """From here to the end of the batch, weights and counters do not belong together."""
        self.changing_weights = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sees to it that a run that was killed behind its last step comes to its end."""
        super().setup(trainer, pl_module, stage)
        end_once(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the run that goes on has left."""
        super().on_train_start(trainer, pl_module)
        found = Path(trainer.ckpt_path or "")
        if self.dirpath is None or found.parent.resolve() != Path(self.dirpath).resolve():
            return
        if found.name == Path(self.last_model_path).name:
            self.gone_on_from = trainer.global_step
        alone = sum(isinstance(callback, ModelCheckpoint) for callback in trainer.callbacks) == 1  # type: ignore[attr-defined]
        if alone and self.knows_its_files:
            self.outdated = (*self.outdated, *(str(path) for path in self._strays(Path(self.dirpath))))

    def _strays(self, folder: Path) -> list[Path]:
        """Checkpoints that only a run that was killed, or broken off by an exception, can have left."""
        if self.save_top_k < 0:
            return []
        value = r"\1=*" if self.auto_insert_metric_name else "*"
        named = re.sub(r"\{([^}:\[]*)[^}]*\}", value, self.filename or "{epoch}-{step}")
        known = {Path(path).name for path in (*self.best_k_models, self.best_model_path, self.last_model_path)}
        return [path for path in folder.glob(f"{named}{self.FILE_EXTENSION}") if path.name not in known]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is saved from here on has yet to be validated."""
        self.validated, self.gone_on_from = False, -1
        straighten_validations(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is over and logged: what is saved from here on need not repeat it."""
        self.validated = True
        super().on_validation_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Forgets what is half done."""
        forget_what_is_half_done(trainer, checkpoint, self.validated)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Deletes what is outdated, after a step that went well from the weights that were saved last."""
        if self.written and trainer.global_step > self._last_global_step_saved:
            self._delete(trainer, self.outdated)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        """Also the one that the run goes on from, which Lightning would leave for good."""
        return previous != current and Path(self.dirpath or "").resolve() in Path(previous).resolve().parents

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self.outdated = (*self.outdated, filepath)

    def _delete(self, trainer: Trainer, files: tuple[str, ...]) -> None:
        for file in files:
            if Path(file).exists():
                trainer.strategy.remove_checkpoint(file)
        self.outdated = tuple(file for file in self.outdated if file not in files)

    def state_dict(self) -> dict[str, Any]:
        """What is outdated too: a run that is killed before it is deleted does so when it goes on."""
        return super().state_dict() | {"outdated": list(self.outdated)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up which files there are and what is to be deleted, if the run is still where it was."""
        self.knows_its_files = state_dict.get("dirpath") == self.dirpath
        if self.knows_its_files:  # of another run's files Lightning would warn, and take the best for this one's
            super().load_state_dict(state_dict)
            self.outdated = tuple(state_dict.get("outdated", ()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last step is saved, whatever the schedule of checkpoints."""
        saved = trainer.global_step in (self._last_global_step_saved, self.gone_on_from)
        if self.save_last and not saved and not trainer.fast_dev_run:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._delete(trainer, self.outdated)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves, unless the weights are those of no step, or of a run that has exploded."""
        whole = not (batch_is_underway(trainer) and self.changing_weights)
        if isinstance(exception, NotFinite):
            if self.outdated and self._last_global_step_saved == trainer.global_step:
                self._delete(trainer, self.written)  # of these very weights; `outdated` has better ones
        elif whole and self._is_finite(trainer):
            super().on_exception(trainer, pl_module, exception)

    @staticmethod
    def _is_finite(trainer: Trainer) -> bool:
        """Whether all ranks would save finite weights and moments."""
        finite = trained_finite(trainer.lightning_module, trainer.optimizers)
        return trainer.strategy.reduce_boolean_decision(finite, all=True)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if not self._is_finite(trainer):
            raise NotFinite(
                f"the weights after step {trainer.global_step} are not finite and are not saved; the checkpoint before "
                f"is {self._last_checkpoint_saved or 'none'}. Lower the learning rate, clip gradients "
                "(--trainer.gradient_clip_val 1.0), or warm up longer"
            )
        path = Path(filepath)
        partial = path.with_name(f".{path.name}.partial")
        if trainer.is_global_zero:
            remove(partial)
        trainer.strategy.barrier()
        trainer.save_checkpoint(partial, self.save_weights_only)
        if partial.is_dir():
            trainer.strategy.barrier()
            write_checksums(partial, trainer.global_rank)
            trainer.strategy.barrier()
        if trainer.is_global_zero:
            put_in_place(partial, path)
        trainer.strategy.barrier()
        earlier = self.written if self._last_global_step_saved == trainer.global_step else ()
        self.written = (*earlier, filepath)
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)
