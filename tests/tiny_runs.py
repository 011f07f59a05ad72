"""A run that takes a second: dropout, accumulation, a schedule, validation; and callbacks that interrupt it.

What every test of the command line, of checkpoints and of run folders drives, in place of a language model.
"""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from datamodules.loading import ResumableLoader
from lm.steps.nonfinite import NotFinite

ACCUMULATION = 2
CONFIG: dict[str, Any] = {
    "model": {"class_path": "tests.tiny_runs.Regression"},
    "data": {"class_path": "tests.tiny_runs.Numbers"},
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 12,
        "accumulate_grad_batches": ACCUMULATION,
        "val_check_interval": 6,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
    "checkpoint": {"every_n_train_steps": 3},
}


class Regression(LightningModule):
    """Linear regression behind dropout.

    Args:
        width: number of inputs.
        lr: step size of AdamW.
    """

    def __init__(self, width: int = 4, lr: float = 0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, 1))
        self.lr = lr

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/loss", (self.net(batch) - batch.sum(1, keepdim=True)).square().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Numbers(LightningDataModule):
    """Random rows, a pure function of the batch's number.

    Args:
        batches: micro-batches of an epoch.
        width: numbers in a row.
    """

    def __init__(self, batches: int = 14, width: int = 4):
        super().__init__()
        self.batches = batches
        self.width = width

    def rows(self, number: int) -> torch.Tensor:
        return torch.randn(8, self.width, generator=torch.Generator().manual_seed(number))

    def train_dataloader(self) -> ResumableLoader:
        return ResumableLoader(lambda position: self.rows(position.number), self.batches, self.trainer)

    def val_dataloader(self) -> ResumableLoader:
        return ResumableLoader(lambda position: self.rows(1000 + position.number), 3)


class Interrupt(Callback):
    """Breaks a run off in the given hook.

    Args:
        hook: name of a callback hook.
        call: which call of that hook, counted from 0.
        how: an exception of the program, Ctrl-C, SIGTERM, or SIGKILL.
        rank: of the process that is broken off.
    """

    def __init__(self, hook: str, call: int, how: str = "error", rank: int = 0):
        self.left = call
        signals = {"sigterm": signal.SIGTERM, "kill": signal.SIGKILL}

        def interrupt(trainer: Any, *args: Any) -> None:
            if trainer.sanity_checking or trainer.global_rank != rank:
                return
            self.left -= 1
            if self.left == -1 and how in signals:
                os.kill(os.getpid(), signals[how])
            elif self.left == -1:
                raise KeyboardInterrupt if how == "ctrl-c" else RuntimeError("interrupted")

        setattr(self, hook, interrupt)


class Poison(Callback):
    """Makes a number that a run keeps not finite.

    Args:
        step: after which optimizer step.
        what: a weight, or what the optimizer keeps of it.
    """

    def __init__(self, step: int, what: str = "weight"):
        self.step, self.what = step, what

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            weight = next(pl_module.parameters())
            kept = weight.data if self.what == "weight" else trainer.optimizers[0].state[weight][self.what]
            kept.view(-1)[0] = float("inf")


class Explode(Callback):
    """A loss that is not finite, as a module reports it.

    Args:
        batch: number of the micro-batch, counted from 0.
    """

    def __init__(self, batch: int):
        self.batch = batch

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.completed == self.batch:
            raise NotFinite("the loss is not finite")


class KillWhileWriting(Callback):
    """Kills the process when half of a checkpoint is on disk.

    Args:
        call: which checkpoint file, counted from 0.
    """

    def __init__(self, call: int):
        self.left = call

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        save = torch.save

        def half(checkpoint: Any, file: Any) -> None:
            save(checkpoint, file)
            self.left -= 1
            if self.left == -1:
                file.truncate(file.tell() // 2)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half


def write_config(folder: Path, name: str = "mini", **changes: dict[str, Any]) -> Path:
    """``<folder>/configs/tiny/<name>.yaml`` with the values of `CONFIG`, sections updated by ``changes``."""
    path = folder / "configs" / "tiny" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = CONFIG.keys() | changes.keys()
    path.write_text(yaml.safe_dump({key: CONFIG.get(key, {}) | changes.get(key, {}) for key in sections}))
    return path


def csv_rows(run: Path) -> list[dict[str, str]]:
    """The CSV log without empty cells."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def logged_numbers(run: Path, skip: Collection[str] = ()) -> list[dict[str, float]]:
    """The CSV log as numbers, without the columns that no two runs share."""
    return [{name: float(value) for name, value in row.items() if name not in skip} for row in csv_rows(run)]


def tensorboard_scalars(run: Path, skip: tuple[str, ...] = ()) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar, by step (files written within one second have no order among them).

    Names are those of the table: in TensorBoard what is looked at less has a group of its own.
    """
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {}
    for tag in events.Tags()["scalars"]:
        if (name := tag.replace("_details/", "/")) not in skip:
            scalars[name] = sorted((event.step, event.value) for event in events.Scalars(tag))
    return scalars


def assert_same(one: Any, other: Any) -> None:
    """Equal bit by bit, however deep the tensors are."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for part, counterpart in zip(one, other, strict=True):
            assert_same(part, counterpart)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
