"""What we take of Lightning that it does not promise: where a fit stands, how checkpoints note it, a few switches.

Lightning counts batches, epochs and validations within its loops. A run that goes on exactly has to read these counts,
and to mend them where Lightning saves half a step or half a validation as it is. No other file reaches into a loop or
a connector; tests/lm/steps/test_lightning_private.py says what each name is taken for in the version that is pinned.
This file knows counts, not what a batch or a method is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.trainer.states import TrainerFn


def trainer_of(module: LightningModule) -> Trainer | None:
    """The trainer that a module is attached to; its own property raises where there is none."""
    return module._trainer


def note_instantiator(module: LightningModule) -> None:
    """Notes, with a module that was built in Python, what the CLI notes: how it is built from its hyper-parameters."""
    if "_instantiator" not in module.hparams:
        module.save_hyperparameters({"_instantiator": "lightning.pytorch.cli.instantiate_module"})


# --- where a fit stands ---------------------------------------------------------------------------------------------


def batches_done(trainer: Trainer) -> tuple[int, int]:
    """Micro-batches that this rank has finished: since training began, and of them those of this epoch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.total.completed, progress.current.completed


def has_begun(trainer: Trainer) -> bool:
    """Whether a first batch was asked for, in this run or in that which it goes on with."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready > 0


def validates_a_fit(trainer: Trainer) -> bool:
    """Whether a validation, in whose hooks this is asked, is one of a fit; Lightning is not ``training`` then."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def epochs_begun(trainer: Trainer) -> int:
    """How many epochs of a fit have begun: the same for a run that was broken off, also behind its last step."""
    epochs = trainer.fit_loop.epoch_progress.current
    return max(epochs.ready, epochs.completed)  # which of them a resumed run counts depends on where it was broken off


def ends_a_step(trainer: Trainer) -> bool:
    """Whether the batch on its way, or else the last one, is the last of its optimizer step."""
    return not trainer.fit_loop._should_accumulate()


def batch_is_underway(trainer: Trainer) -> bool:
    """Whether a batch has begun whose hooks are not all behind it."""
    batch = trainer.fit_loop.epoch_loop.batch_progress.current
    return batch.completed != batch.ready


def step_is_half_done(trainer: Trainer) -> bool:
    """Whether a batch is on its way, or the gradients of an unfinished optimizer step are there."""
    batch = trainer.fit_loop.epoch_loop.batch_progress.current
    return batch.processed < batch.ready or not ends_a_step(trainer)


def batch_just_ended(trainer: Trainer) -> bool:
    """Whether training is in the hooks at the end of a batch, before Lightning logs it and validates."""
    batch = trainer.fit_loop.epoch_loop.batch_progress.current
    return trainer.training and batch.completed < batch.processed == batch.ready


def validation_is_due(trainer: Trainer) -> bool:
    """Whether a batch has just ended after which Lightning validates."""
    loop = trainer.fit_loop
    return batch_just_ended(trainer) and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


# --- how a checkpoint notes it --------------------------------------------------------------------------------------


def forget_what_is_half_done(trainer: Trainer, checkpoint: dict[str, Any], validated: bool) -> None:
    """Sets the counts in a checkpoint to where a run can go on from: no half step, no half validation.

    Args:
        trainer: whose fit is saved.
        checkpoint: as Lightning is about to write it; changed in place.
        validated: whether the last validation that began is over and logged.
    """
    loops = checkpoint["loops"]["fit_loop"]
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    now = batches["current"]
    if step_is_half_done(trainer):  # also where it is validated: that comes again with the step
        _forget(batches, now["completed"] - now["completed"] % trainer.accumulate_grad_batches)
        batches["is_last_batch"] = False
    elif (trainer.validating and not validated) or validation_is_due(trainer):
        _forget(batches, now["ready"])
        _expect_again(loops["epoch_loop.val_loop.batch_progress"], 0)
    elif epochs["current"]["processed"] == epochs["current"]["ready"] and now["completed"]:
        _end_epoch(trainer, batches, epochs)


def _end_epoch(trainer: Trainer, batches: dict[str, Any], epochs: dict[str, Any]) -> None:
    """Tells an epoch that has ended from one that max_steps cut short, with which a longer run goes on."""
    ended = epochs["current"]["processed"]
    _forget(epochs, ended)
    if batches["current"]["completed"] >= trainer.num_training_batches:
        batches |= {"current": dict.fromkeys(batches["current"], 0), "is_last_batch": False}
    else:
        _expect_again(epochs, ended - 1)


def _forget(progress: dict[str, Any], keep: int) -> None:
    """Sets all counts of a checkpoint's progress to ``keep`` since it last began."""
    before = progress["total"]["completed"] - progress["current"]["completed"]
    progress["current"] = dict.fromkeys(progress["current"], keep)
    progress["total"] = dict.fromkeys(progress["total"], before + keep)


def _expect_again(progress: dict[str, Any], keep: int) -> None:
    """Makes Lightning, on resume, go back to what comes after ``keep``: its mark of a thing begun and not finished."""
    _forget(progress, keep)
    for counts in (progress["total"], progress["current"]):
        counts["ready"] = counts["started"] = counts["completed"] + 1


def straighten_validations(trainer: Trainer) -> None:
    """Sets right, as a validation begins, the counts that `_expect_again` bent in the checkpoint of a resumed run."""
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    total.ready = total.started = total.processed = total.completed


# --- how it is logged -----------------------------------------------------------------------------------------------


def log_by_optimizer_steps(trainer: Trainer) -> None:
    """Keeps the axis of the logs on optimizer steps; Lightning's count of its own is off by one after a resume."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def pending_row(trainer: Trainer) -> dict[str, Any]:
    """The row of the training batch that just ended, if Lightning has yet to log it; empty otherwise.

    Checkpoints are made in ``on_train_batch_end``, and Lightning logs a batch after that hook.
    """
    connector = trainer._logger_connector
    if not (batch_just_ended(trainer) and ends_a_step(trainer) and connector.should_update_logs):
        return {}
    metrics = {name: float(value) for name, value in connector.metrics["log"].items()}
    step = metrics.pop("step", trainer.fit_loop.epoch_loop._batches_that_stepped)
    return {"step": int(step), "metrics": metrics | {"epoch": trainer.current_epoch}} if metrics else {}


# --- how it ends ----------------------------------------------------------------------------------------------------


class EndsOnce(_FitLoop):
    """Lightning's loop, except that a run with all of its steps behind it ends as every other does.

    Lightning skips its hooks: a run that was killed between the last checkpoint and the report would be complete
    without one.
    """

    @property
    def skip(self) -> bool:
        """Whether there is nothing to train, and was not."""
        return super().skip and (self.trainer.limit_train_batches == 0 or not self._loaded_from_state_dict)


def end_once(trainer: Trainer) -> None:
    """Sees to it that a run that was killed behind its last step comes to its end; see `EndsOnce`."""
    trainer.fit_loop.__class__ = EndsOnce


def ask_before_every_batch(trainer: Trainer, ask: Callable[[], None]) -> None:
    """With several ranks: calls ``ask`` where Lightning would ask rank 0 whether a signal has come."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = ask  # type: ignore[method-assign]


def note_sigterm(trainer: Trainer) -> None:
    """Lets Lightning know that the run was told to stop."""
    trainer._signal_connector.received_sigterm = True
