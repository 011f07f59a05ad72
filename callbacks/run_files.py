"""What a run leaves in its folder beside checkpoints: final scalars, tokenizer, logs that a resumed run continues.

It knows the trainer, its loggers and a datamodule that may have a tokenizer. It does not know what the scalars mean.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from torch.optim import Optimizer

from callbacks.run_folders import LOGS, METRICS, atomic_write, rewind_logs
from lm.files.checkpoint_files import has_checkpoints
from lm.protocols import HasResults
from lm.steps.lightning_private import (
    epochs_begun,
    log_by_optimizer_steps,
    pending_row,
    step_is_half_done,
    validates_a_fit,
)

DETAILS = re.compile(r"^(\w+)/(lr-|grad_norm|tokens|\w+_per_s|length/|logps/|ref_logps/|nll)")
"""Curves that are looked at when something is wrong with the others."""


class RunFiles(Callback):
    """Writes ``metrics.json`` and ``tokenizer/`` into the run folder, and notes in checkpoints how far the logs went.

    ``metrics.json`` is written when a verb has completed, and only then: a folder without it belongs to a run that is
    going on or was interrupted, whatever exit code the system saw.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.begun = False
        self.of_before: list[Path] = []  # TensorBoard's files of a run that goes on
        self.lengths: dict[str, int] | None = None  # of its logs at the checkpoint
        self.within: tuple[int, dict[str, int]] | None = None  # a half step that was validated, lengths before that
        self.metrics: dict[str, float | None] = {}
        self.pending: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run's folder; what is in it stays as it is until a checkpoint that it goes on from has loaded."""
        log_dir, later = trainer.log_dir, has_checkpoints(trainer)  # agreed between ranks: every rank has to ask
        if log_dir is None or not trainer.is_global_zero:
            return
        self.folder, self.begun = Path(log_dir), False
        self.folder.mkdir(parents=True, exist_ok=True)
        self.of_before = [*self.folder.glob("events.out.tfevents.*")]
        if not later:
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        """Marks the run as unfinished and saves the tokenizer."""
        assert self.folder is not None
        self.begun = True
        (self.folder / METRICS).unlink(missing_ok=True)
        if (tokenizer := getattr(trainer.datamodule, "tokenizer", None)) is not None:
            tokenizer.save_pretrained(str(self.folder / "tokenizer"))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes how long each log is, so that a run going on from here continues them without a gap or a repeat."""
        if self.folder is None:
            return
        checkpoint[LOGS] = {
            "lengths": self._lengths_where_it_goes_on(trainer),
            "pending": pending_row(trainer),
            "metrics": self.metrics | plain(trainer.callback_metrics),
        }

    def _lengths_where_it_goes_on(self, trainer: Trainer) -> dict[str, int]:
        """A run goes on from the beginning of a half step: what was validated within it is validated again."""
        if self.within is not None and self.within[0] == trainer.global_step and step_is_half_done(trainer):
            return self.within[1]
        return self._lengths_now(trainer)

    def _lengths_now(self, trainer: Trainer) -> dict[str, int]:
        assert self.folder is not None
        for logger in trainer.loggers:
            logger.save()
        return log_lengths(self.folder)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes how long the logs are before a validation within a step, the first of that step."""
        if self.folder is None or not validates_a_fit(trainer) or not step_is_half_done(trainer):
            return
        if self.within is None or self.within[0] != trainer.global_step:
            self.within = trainer.global_step, self._lengths_now(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes up the scalars and the unlogged row of the run that goes on."""
        continues = self.folder is not None and self.folder.resolve() in Path(trainer.ckpt_path or "").resolve().parents
        if continues and LOGS in checkpoint:
            noted = checkpoint[LOGS]
            self.metrics, self.pending, self.lengths = noted["metrics"], noted["pending"], noted["lengths"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything has loaded: cuts the logs to where the checkpoint was, and logs the row that travelled with it."""
        if self.folder is not None and not self.begun:
            if self.lengths is not None:
                rewind_logs(self.folder, self.lengths, self.of_before)
            self._begin(trainer)
        for logger in trainer.loggers if self.pending else []:
            logger.log_metrics(dict(self.pending["metrics"]), step=self.pending["step"])
        self.pending = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keeps the axis of the logs on optimizer steps."""
        if pl_module.automatic_optimization:
            log_by_optimizer_steps(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the final scalars: this hook comes after every other one of a verb, and only if it completed."""
        if self.folder is None:
            return
        metrics: dict[str, Any] = self.metrics | plain(trainer.callback_metrics)
        if isinstance(pl_module, HasResults):
            metrics |= pl_module.results
        if stage == "fit":
            metrics |= {"step": trainer.global_step, "epoch": epochs_begun(trainer)}
        with atomic_write(self.folder / METRICS) as file:
            json.dump(metrics, file, indent=2, sort_keys=True, allow_nan=False)
            file.write("\n")
        print(f"Run folder: {self.folder} (logs, {METRICS}; curves: tensorboard --logdir {self.folder})")


class SavedConfig(SaveConfigCallback):
    """Lightning's, except that a run that goes on keeps its configuration until its checkpoint has loaded."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves that of a run that begins."""
        if not has_checkpoints(trainer):
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves that of a run that goes on."""
        super().setup(trainer, pl_module, "fit")


class LearningRate(Callback):
    """Logs the learning rate of an optimizer step in the row of that step; Lightning's monitor logs micro-batches."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """``train/lr-<optimizer>``, and ``.../<part>`` of a part with its own; one per group where those differ."""
        if not getattr(pl_module, "step_is_logged", True):
            return  # a value that nobody writes down costs as much as one that is
        name = f"train/lr-{type(optimizer).__name__}"
        rates = [group["lr"] for group in optimizer.param_groups if "part" not in group]
        names = [name] if len(set(rates)) == 1 else [f"{name}/pg{group}" for group in range(1, len(rates) + 1)]
        of_parts = {f"{name}/{group['part']}": group["lr"] for group in optimizer.param_groups if "part" in group}
        self.log_dict({key: float(rate) for key, rate in (*zip(names, rates, strict=False), *of_parts.items())})


def plain(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Numbers that JSON can hold: a value that is not finite becomes null."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def log_lengths(folder: Path) -> dict[str, int]:
    """Bytes of each TensorBoard file, rows of ``metrics.csv``."""
    lengths = {file.name: file.stat().st_size for file in folder.glob("events.out.tfevents.*")}
    if (table := folder / "metrics.csv").exists():
        with table.open(newline="") as file:
            lengths[table.name] = sum(1 for _ in csv.reader(file)) - 1
    return lengths


def run_loggers(folder: Path) -> list[Logger]:
    """The loggers of a run: TensorBoard first, since ``trainer.log_dir`` is the first logger's, and a CSV table."""
    where = {"save_dir": str(folder.parent), "name": "", "version": folder.name}
    return [CurvesLogger(**where, default_hp_metric=False), TableLogger(**where)]


class CurvesLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger, so arranged that TensorBoard opens on loss and rewards.

    It shows groups and curves by name: what is looked at less has a group of its own, ``train_details``, and the epoch
    is in the table alone.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes all but ``epoch``, each in its group."""
        shown = {DETAILS.sub(r"\1_details/\2", name): value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(shown, step)


class TableLogger(CSVLogger):
    """Lightning's CSVLogger, except that it continues the table it finds (Lightning's deletes it)."""

    _experiment: ExperimentWriter | None

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer behind the logger."""
        if self._experiment is None:
            self._experiment = ContinuedTable(log_dir=self.log_dir)
        return self._experiment


class ContinuedTable(ExperimentWriter):
    """Appends to ``metrics.csv``; a new column never costs a row, even if the process is killed."""

    def _check_log_dir_exists(self) -> None:
        table = Path(self.metrics_file_path)
        if table.exists():
            with table.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        table = Path(self.metrics_file_path)
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with atomic_write(table) as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(rows)
