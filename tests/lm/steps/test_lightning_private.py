"""What Lightning does not promise and this repository builds on is still what it is taken for."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.mixins import HyperparametersMixin
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import ModelParallelStrategy

from callbacks.checkpoints import Checkpoints
from callbacks.run_files import ContinuedTable, TableLogger
from cli.trainer_cli import SeedlingCLI
from lm.files.hyperparameters import PlainHyperparameters
from lm.steps import lightning_private as private
from lm.steps.strategies import FullySharded
from tests.tiny_runs import Numbers, Regression

ROOT = Path(__file__).parents[3]


def fitted(*watching: Callback, **options: Any) -> Trainer:
    """Two epochs of three batches; steps end with batches 1 and 2 of each: two accumulated ones, and what is left."""
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(watching),
        accumulate_grad_batches=2,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 2, "logger": False} | options,
    )
    trainer.fit(Regression(), Numbers(batches=3))
    return trainer


class Watch(Callback):
    """Notes where the fit stands, in every hook."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

        def noting(hook: str) -> Any:
            return lambda trainer, *_: self.seen.append((hook.removeprefix("on_"), *where(trainer)))

        for hook in ("on_train_start", "on_train_batch_start", "on_train_batch_end", "on_validation_end", "on_fit_end"):
            setattr(self, hook, noting(hook))


def where(trainer: Trainer) -> tuple[Any, ...]:
    """(batches, of the epoch, epochs begun) and what is so of the present moment."""
    told = (private.has_begun, private.batch_is_underway, private.batch_just_ended, private.ends_a_step)
    told += (private.step_is_half_done, private.validation_is_due)
    true = {function.__name__ for function in told if function(trainer)}
    return *private.batches_done(trainer), private.epochs_begun(trainer), true


def test_counts_say_where_a_fit_stands() -> None:
    watch = Watch()
    fitted(watch)
    on_its_way = {"has_begun", "batch_is_underway", "step_is_half_done"}
    at_its_end = {"has_begun", "batch_is_underway", "batch_just_ended"}
    expected: list[tuple[Any, ...]] = [("train_start", 0, 0, 0, {"ends_a_step"})]
    for epoch in (1, 2):
        before = 3 * (epoch - 1)
        expected += [
            ("train_batch_start", before, 0, epoch, on_its_way),
            ("train_batch_end", before, 0, epoch, at_its_end | {"step_is_half_done"}),
            ("train_batch_start", before + 1, 1, epoch, on_its_way | {"ends_a_step"}),
            ("train_batch_end", before + 1, 1, epoch, at_its_end | {"ends_a_step"}),
            ("train_batch_start", before + 2, 2, epoch, on_its_way | {"ends_a_step"}),
            ("train_batch_end", before + 2, 2, epoch, at_its_end | {"ends_a_step", "validation_is_due"}),
            ("validation_end", before + 3, 3, epoch, {"has_begun", "ends_a_step"}),
        ]
    expected += [("fit_end", 6, 3, 2, {"has_begun", "ends_a_step"})]
    assert watch.seen == expected


class Rows(Logger):
    """Keeps what it is given."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({"step": step, "metrics": dict(metrics)})


def test_a_row_that_is_pending_is_what_lightning_logs_next() -> None:
    pending: list[dict[str, Any]] = []

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            private.log_by_optimizer_steps(trainer)

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            pending.append(private.pending_row(trainer))

    rows = Rows()
    fitted(Look(), logger=rows, log_every_n_steps=2, limit_val_batches=0)
    assert [row for row in pending if row] == rows.rows
    assert [bool(row) for row in pending] == [False, False, True, False, False, True]  # steps 2 and 4
    assert [row["step"] for row in rows.rows] == [1, 3]  # counted from 0


COUNTS = {"ready", "started", "processed", "completed"}


def test_a_checkpoint_notes_the_counts_that_are_mended(tmp_path: Path) -> None:
    """Saved within the second batch of the second step: three batches are done, and the two steps of an epoch."""

    class Save(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if private.batches_done(trainer) == (4, 1):
                trainer.save_checkpoint(tmp_path / "half.ckpt")

        def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
            loops = checkpoint["loops"]["fit_loop"]
            progress = [
                loops[f"{name}progress"] for name in ("epoch_loop.batch_", "epoch_loop.val_loop.batch_", "epoch_")
            ]
            for each in progress:
                assert each.keys() >= {"total", "current"}
                assert each["total"].keys() == each["current"].keys() == COUNTS
            assert set(progress[0]["current"].values()) == {1, 2}
            private.forget_what_is_half_done(trainer, checkpoint, validated=True)

    trainer = fitted(Save())
    saved = torch.load(tmp_path / "half.ckpt")["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    none = dict.fromkeys(COUNTS, 0)
    assert saved == {"total": dict.fromkeys(COUNTS, 3), "current": none, "is_last_batch": False}
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    total.ready = total.started = 5
    private.straighten_validations(trainer)
    assert {total.ready, total.started, total.processed, total.completed} == {3}


def test_a_module_knows_its_trainer_and_how_it_is_built(tmp_path: Path) -> None:
    module = Regression(width=3)
    assert private.trainer_of(module) is None
    module.trainer = trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert private.trainer_of(module) is trainer
    private.note_instantiator(module)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    assert "_instantiator" in module.hparams
    assert Regression.load_from_checkpoint(tmp_path / "some.ckpt").hparams["width"] == 3


def test_switches_are_where_they_were() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert not trainer.received_sigterm
    private.note_sigterm(trainer)
    assert trainer.received_sigterm
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance)
    assert list(inspect.signature(_TrainingEpochLoop._broadcast_sigterm_tensor).parameters) == ["self"]
    assert type(trainer.fit_loop) is _FitLoop
    assert trainer.fit_loop._loaded_from_state_dict is False
    private.end_once(trainer)
    assert type(trainer.fit_loop) is private.EndsOnce
    trainer.fit_loop.load_state_dict(trainer.fit_loop.state_dict())
    assert trainer.fit_loop._loaded_from_state_dict is True


OVERRIDDEN = {
    Checkpoints: (ModelCheckpoint, ["_remove_checkpoint", "_save_checkpoint", "_should_remove_checkpoint"]),
    ContinuedTable: (ExperimentWriter, ["_check_log_dir_exists", "_rewrite_with_new_header"]),
    SeedlingCLI: (LightningCLI, ["_instantiate_trainer", "_parse_ckpt_path"]),
}
"""Private methods that subclasses have in place of Lightning's."""

CALLED = {
    Checkpoints: (ModelCheckpoint, ["_monitor_candidates(trainer)", "_save_last_checkpoint(trainer, x)"]),
    SeedlingCLI: (LightningCLI, ["_get(config, x)"]),
    Callback: (Callback, ["_generate_state_key(name=x)"]),
}
"""Private methods that they call, and with what."""

KEPT = {
    Checkpoints: (ModelCheckpoint, ["_last_checkpoint_saved", "_last_global_step_saved"]),
    TableLogger: (CSVLogger, ["_experiment"]),
    SeedlingCLI: (LightningCLI, ["_subcommand_parsers"]),
    FullySharded: (ModelParallelStrategy, ["_data_parallel_size"]),
    PlainHyperparameters: (HyperparametersMixin, ["_hparams"]),
}
"""Attributes that they read or set."""


def source_of(theirs: type) -> str:
    """Of a class and of those that it is made of."""
    return "".join(inspect.getsource(base) for base in theirs.__mro__ if base.__module__.startswith("lightning."))


@pytest.mark.parametrize("ours", OVERRIDDEN)
def test_what_is_overridden_is_called_by_lightning_as_before(ours: type) -> None:
    theirs, names = OVERRIDDEN[ours]
    found = [name for name in vars(ours) if re.fullmatch("_[a-z]\\w+", name) and hasattr(theirs, name)]
    assert sorted(set(found) - {"_abc_impl", "_experiment"}) == names
    for name in names:
        assert f"self.{name}(" in source_of(theirs)
        own, other = (list(inspect.signature(getattr(kind, name)).parameters.values()) for kind in (ours, theirs))
        assert [each.kind for each in own] == [each.kind for each in other]


@pytest.mark.parametrize("ours", CALLED)
def test_what_is_called_takes_what_it_is_given(ours: type) -> None:
    theirs, calls = CALLED[ours]
    for call in calls:
        name, given = re.fullmatch(r"(\w+)\((.*)\)", call).groups()  # type: ignore[union-attr]
        words = [word.partition("=") for word in given.split(", ")]
        named = {word: value for word, equals, value in words if equals}
        inspect.signature(getattr(theirs, name)).bind(None, *(w for w, equals, _ in words if not equals), **named)


@pytest.mark.parametrize("ours", KEPT)
def test_attributes_are_those_that_lightning_keeps(ours: type) -> None:
    theirs, names = KEPT[ours]
    for name in names:
        assert re.search(rf"self\.{name}\b.* =", source_of(theirs)), name


def test_no_other_file_reaches_into_lightning() -> None:
    """Nor does another import what is private there."""
    inside = re.compile(r"fit_loop|epoch_loop|_connector\b|\._trainer\b|from lightning\S* import .*\b_")
    rooms = ("callbacks", "cli", "datamodules", "lm", "losses", "metrics", "modules", "studies")
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        found = inside.search(path.read_text())
        assert not found or path.name == "lightning_private.py", f"{path}: {found[0]}"
