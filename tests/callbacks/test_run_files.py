"""What a run leaves in its folder: final scalars, tokenizer, logs without gap or repeat."""

from __future__ import annotations

import inspect
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import Checkpoints, RunFiles
from callbacks.run_files import CurvesLogger, LearningRate, TableLogger, plain, run_loggers
from callbacks.run_folders import (
    LOGS,
    OF_OTHER_VERBS,
    atomic_write,
    claim_version,
    clear_leftovers,
    newest_resumable,
    remove_if_nothing_happened,
    resumable_checkpoint,
    rewind_logs,
    versions,
)
from lm.files.checkpoint_files import read_header
from tests.stand_ins import tiny_tokenizer
from tests.tiny_runs import Numbers, Regression, csv_rows, tensorboard_scalars
from text.errors import UserError


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


def test_tensorboard_opens_on_what_is_trained(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    with_rate = trainer(run)
    with_rate.callbacks.append(LearningRate())
    with_rate.fit(Regression(), Numbers())
    events = EventAccumulator(str(run))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "train_details/lr-AdamW"]  # and no curve of the epoch
    assert {"epoch", "train/lr-AdamW"} <= csv_rows(run)[0].keys()


def test_what_is_looked_at_less_comes_later_in_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, float] = {}
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", lambda self, metrics, step: shown.update(metrics))
    names = ["train/tokens_per_s", "train/loss", "train/length/chosen", "val/logps/chosen", "train/rewards/margin"]
    names += ["val/loss", "train/grad_norm", "val/rewards/accuracy", "val/ndcg@10", "train/nll_chosen", "epoch"]
    CurvesLogger(str(tmp_path)).log_metrics(dict.fromkeys(names, 0.0), 1)
    assert sorted(shown) == [
        *("train/loss", "train/rewards/margin"),
        *(f"train_details/{name}" for name in ("grad_norm", "length/chosen", "nll_chosen", "tokens_per_s")),
        *("val/loss", "val/ndcg@10", "val/rewards/accuracy"),
        "val_details/logps/chosen",
    ]


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
    noted = (read_header(run / "checkpoints" / "last.ckpt") or {})[LOGS]
    rewind_logs(run, noted["lengths"], [*run.glob("events*")])
    assert [row["step"] for row in csv_rows(run)] == ["0", "1", "2"]  # the row of step 3 travels with the checkpoint
    assert len(list(run.glob("events*"))) == 1
    assert [step for step, _ in tensorboard_scalars(run)["train/loss"]] == [0, 1, 2]


def test_versions_are_claimed_once(tmp_path: Path) -> None:
    assert [claim_version(tmp_path).name for _ in range(3)] == ["version_0", "version_1", "version_2"]
    for name in ("version_10", "version_x", "version_\u00b2", "version_" + "9" * 30):
        (tmp_path / name).mkdir()
    assert claim_version(tmp_path).name == "version_11"
    assert [run.name for run in versions(tmp_path)] == [f"version_{n}" for n in (11, 10, 2, 1, 0)]


def test_a_run_that_was_broken_off_is_not_passed_over_for_a_complete_one_but_those_of_other_verbs_are(
    tmp_path: Path,
) -> None:
    def claim(config: str, *files: str) -> Path:
        run = claim_version(tmp_path)
        (run / "checkpoints").mkdir()
        (run / "config.yaml").write_text(f"{config}\nckpt_path: null\n")
        for file in files:
            (run / file).write_text("{}")
        return run

    assert newest_resumable(tmp_path) is None
    complete = claim("trainer: {}", "metrics.json")
    found = complete, checkpoint(complete / "checkpoints" / "last.ckpt", 3, 1, lr_schedulers=[])
    claim("verbose: true", "metrics.json")
    claim("return_predictions: null")  # broken off, and nobody's to go on with
    claim("trainer: {}", "metrics.json")  # kept no checkpoints
    claim_version(tmp_path)  # claimed by another process at this moment
    assert newest_resumable(tmp_path) == found
    broken = claim("trainer: {}")
    with pytest.raises(UserError, match=f"{broken} was broken off before"):
        newest_resumable(tmp_path)
    (complete / "metrics.json").unlink()
    assert newest_resumable(tmp_path) == found


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_verbs_are_told_apart_by_arguments_of_lightning(verb: str) -> None:
    arguments = inspect.signature(getattr(Trainer, verb)).parameters
    assert OF_OTHER_VERBS.isdisjoint(arguments) is (verb == "fit")


def test_the_folder_of_a_refused_run_is_taken_back_if_nothing_happened_in_it(tmp_path: Path) -> None:
    for name in ("config.yaml", "events.out.tfevents.1", "hparams.yaml"):
        (tmp_path / "version_0").mkdir(exist_ok=True)
        (tmp_path / "version_0" / name).touch()
    (tmp_path / "version_0" / "checkpoints").mkdir()
    remove_if_nothing_happened(tmp_path / "version_0")
    assert not (tmp_path / "version_0").exists()
    for name in ("metrics.csv", "checkpoints/last.ckpt", "responses.jsonl"):
        run = tmp_path / "version_1"
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / name).touch()
        remove_if_nothing_happened(run)
        assert (run / name).exists()
        (run / name).unlink()


def checkpoint(path: Path, step: int, written: int, **more: Any) -> Path:
    torch.save({"state_dict": {}, "global_step": step} | more, path)
    os.utime(path, (written, written))
    return path


def test_the_checkpoint_with_the_most_steps_is_gone_on_from_whenever_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    checkpoint(folder / "weights.ckpt", 9, 9)
    assert resumable_checkpoint(tmp_path / "version_0") is None  # weights alone
    copied = checkpoint(folder / "copied.ckpt", 3, 8, lr_schedulers=[])
    latest = checkpoint(folder / "latest.ckpt", 5, 1, lr_schedulers=[])
    assert resumable_checkpoint(tmp_path / "version_0") == latest
    (folder / "sharded.ckpt").mkdir()  # a folder that nobody has looked into
    (folder / "sharded.ckpt" / "meta.pt").write_bytes(b"cut")
    assert resumable_checkpoint(tmp_path / "version_0") == latest
    latest.write_bytes(latest.read_bytes()[:-100])
    assert resumable_checkpoint(tmp_path / "version_0") == copied


def test_what_a_kill_left_half_written_goes_and_what_it_took_away_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name in (".last.ckpt.partial", ".last.ckpt.old", "..new.ckpt.partial.writing"):
        (folder / name).mkdir(parents=True)
        (folder / name / "meta.pt").write_text(name)
    (tmp_path / ".metrics.json.partial").write_text("half")
    (tmp_path / "metrics.csv").write_text("kept")
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "last.ckpt", "meta.pt", "metrics.csv"]
    assert (folder / "last.ckpt" / "meta.pt").read_text() == ".last.ckpt.old"


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
