"""What a run leaves in its folder: final scalars, tokenizer, logs without gap or repeat."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import Checkpoints, RunFiles
from callbacks.run_files import TableLogger, plain, run_loggers
from callbacks.run_folders import atomic_write, claim_version, newest_resumable, remove_if_empty, rewind_logs
from tests.stand_ins import tiny_tokenizer
from tests.tiny_runs import Numbers, Regression, csv_rows, tensorboard_scalars


def trainer(run: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=run_loggers(run),
        callbacks=[RunFiles(), Checkpoints(str(run / "checkpoints"), save_last=True, every_n_train_steps=2)],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_steps": 4} | options,
    )


def test_works_without_the_command_line_and_saves_the_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    data = Numbers()
    data.tokenizer = tiny_tokenizer()
    trainer(tmp_path / "version_0").fit(Regression(), data)
    metrics = json.loads((tmp_path / "version_0" / "metrics.json").read_text())
    assert metrics.keys() == {"train/loss", "val/loss", "step", "epoch"} - {"val/loss"}
    saved = AutoTokenizer.from_pretrained(tmp_path / "version_0" / "tokenizer")
    assert saved("hello world")["input_ids"] == data.tokenizer("hello world")["input_ids"]


def test_no_metrics_while_a_run_is_going_on_or_after_it_was_broken_off(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    trainer(run).fit(Regression(), Numbers())

    class Breaks(Regression):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            assert not (run / "metrics.json").exists()
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(run).fit(Breaks(), Numbers())
    assert not (run / "metrics.json").exists()


def test_values_that_are_not_finite_become_null() -> None:
    assert plain({"a": torch.tensor(2.0), "b": math.nan, "c": torch.tensor(math.inf)}) == {
        "a": 2.0,
        "b": None,
        "c": None,
    }


def test_table_goes_on_and_a_new_column_loses_no_row(tmp_path: Path) -> None:
    for step, metrics in enumerate([{"a": 1.0}, {"b": 2.0}, {"a": 3.0, "c": 4.0}]):
        logger = TableLogger(str(tmp_path), name="", version="version_0")  # a new process each time
        logger.log_metrics(metrics, step)
        logger.save()
    assert csv_rows(tmp_path / "version_0") == [
        {"a": "1.0", "step": "0"},
        {"b": "2.0", "step": "1"},
        {"a": "3.0", "c": "4.0", "step": "2"},
    ]


def test_logs_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    trainer(run).fit(Regression(), Numbers())
    with (run / "metrics.csv").open("a") as table:
        table.write("0,4,1.0\n0,5,")  # one step after the checkpoint, and half of another
    with next(run.glob("events*")).open("ab") as events:
        events.write(b"half an event")
    (run / "events.out.tfevents.9999999999.of.a.later.process").write_bytes(b"")
    rewind_logs(run, run / "checkpoints" / "last.ckpt")
    assert [row["step"] for row in csv_rows(run)] == ["0", "1", "2"]  # the row of step 3 travels with the checkpoint
    assert len(list(run.glob("events*"))) == 1
    assert [step for step, _ in tensorboard_scalars(run)["train/loss"]] == [0, 1, 2]


def test_versions_are_claimed_once_and_given_back_when_empty(tmp_path: Path) -> None:
    assert [claim_version(tmp_path).name for _ in range(3)] == ["version_0", "version_1", "version_2"]
    (tmp_path / "version_10").mkdir()
    (tmp_path / "version_x").mkdir()
    assert claim_version(tmp_path).name == "version_11"
    remove_if_empty(tmp_path / "version_11")
    assert not (tmp_path / "version_11").exists()
    (tmp_path / "version_10" / "file").touch()
    remove_if_empty(tmp_path / "version_10")
    assert (tmp_path / "version_10").exists()


def test_weights_alone_are_no_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"state_dict": {}}, folder / "weights.ckpt")
    assert newest_resumable(tmp_path) is None
    torch.save({"state_dict": {}, "lr_schedulers": []}, folder / "old.ckpt")
    torch.save({"state_dict": {}, "lr_schedulers": []}, folder / "new.ckpt")
    os.utime(folder / "old.ckpt", (1, 1))
    assert newest_resumable(tmp_path) == (tmp_path / "version_0", folder / "new.ckpt")


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines(["after", None])
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with atomic_write(path) as file:
        file.write("after")
    assert path.read_text() == "after"
