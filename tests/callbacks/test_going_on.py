"""What `--ckpt_path last` goes on with, what it leaves alone, and what a failure leaves as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from callbacks.run_lock import LOCK, lock, unlock
from cli.trainer_cli import main
from lm.files.checkpoint_files import by_step
from tests import warm_runs
from tests.tiny_runs import CONFIG, csv_rows, tensorboard_scalars, write_config

LAST = ["--ckpt_path", "last"]


@pytest.fixture(autouse=True)
def _one_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py"])


def fit(folder: Path, *options: str, **changes: dict) -> Path:
    config = write_config(folder, **changes)
    main(["fit", "--config", str(config), "--trainer.default_root_dir", str(folder / "runs"), *options])
    return folder / "runs" / "version_0"


def interrupt(hook: str, call: int, how: str = "error") -> list[str]:
    key = "--trainer.callbacks"
    return [f"{key}+=tests.tiny_runs.Interrupt", f"{key}.hook={hook}", f"{key}.call={call}", f"{key}.how={how}"]


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(tmp_path, capsys):
    run = fit(tmp_path)
    before = contents(run)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, *LAST)
    assert stopped.value.code == 0
    assert f"{run} is complete, and is left alone" in capsys.readouterr().out
    assert contents(run) == before
    fit(tmp_path, *LAST, "--trainer.max_steps=15")
    assert json.loads((run / "metrics.json").read_text())["step"] == 15
    assert json.loads((run / "metrics.json").read_text()).keys() == json.loads(before["metrics.json"]).keys()
    assert [row["step"] for row in csv_rows(run) if "train/loss" in row] == [str(step) for step in range(15)]


@pytest.mark.parametrize("limits", [{}, {"max_steps": -1, "max_epochs": 2}])
def test_a_run_that_was_killed_behind_its_last_step_ends_as_every_other(tmp_path, limits):
    whole = fit(tmp_path / "whole", trainer=_trainer(limits))
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path / "broken", *interrupt("on_train_end", 0), trainer=_trainer(limits))
    run = tmp_path / "broken" / "runs" / "version_0"
    assert not (run / "metrics.json").exists()
    fit(tmp_path / "broken", *LAST, trainer=_trainer(limits))
    assert json.loads((run / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())
    assert csv_rows(run) == csv_rows(whole)
    assert tensorboard_scalars(run) == tensorboard_scalars(whole)


def _trainer(limits: dict) -> dict:
    return CONFIG["trainer"] | limits


def test_a_resume_that_fails_has_touched_nothing(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, *interrupt("on_train_batch_end", 15))
    run = tmp_path / "runs" / "version_0"
    before = contents(run)
    with pytest.raises((SystemExit, RuntimeError)):
        fit(tmp_path, *LAST, "--model.init_args.width=7", "--data.init_args.width=7")
    after = contents(run)
    assert {name: after.get(name) for name in before} == before
    fit(tmp_path, *LAST)
    assert json.loads((run / "metrics.json").read_text())["step"] == 12


def test_last_never_reaches_behind_a_run_that_left_nothing(tmp_path, capsys):
    fit(tmp_path)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, *interrupt("on_train_batch_end", 1), checkpoint={"save_on_exception": False})
    with pytest.raises(SystemExit) as refused:
        fit(tmp_path, *LAST)
    assert refused.value.code == 1
    assert "version_1 was broken off before it left a checkpoint to go on from, and " in (
        said := capsys.readouterr().err
    )
    assert "version_0 is complete. Start anew" in said


def test_runs_of_other_verbs_are_not_gone_on_with_and_stand_in_nobodys_way(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, *interrupt("on_train_batch_end", 15))
    config = write_config(tmp_path)
    for version in (1, 2):
        main(["validate", "--config", str(config), "--trainer.default_root_dir", str(tmp_path / "runs"), *LAST])
        assert (tmp_path / "runs" / f"version_{version}" / "metrics.json").exists()
    run = fit(tmp_path, *LAST)
    assert f"Going on in {run} from " in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["step"] == 12


def test_a_requeued_job_goes_on_with_a_run_of_its_own(tmp_path, monkeypatch, capsys):
    for job in ("7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(tmp_path, *interrupt("on_train_batch_end", 15))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = fit(tmp_path)
    assert f"Going on in {run} from " in capsys.readouterr().out
    assert (run / "metrics.json").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "9")  # which was stopped before it began anything
    fit(tmp_path)
    assert (tmp_path / "runs" / "version_2" / "metrics.json").exists()


def test_a_run_that_is_being_written_is_not_gone_on_with(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, *interrupt("on_train_batch_end", 15))
    run = tmp_path / "runs" / "version_0"
    assert not (run / LOCK).exists()
    lock(run)
    before = contents(run)
    with pytest.raises(SystemExit) as refused:
        fit(tmp_path, *LAST)
    assert refused.value.code == 1
    assert "is being written by process" in capsys.readouterr().err
    assert contents(run) == before
    unlock(run)
    fit(tmp_path, *LAST)


def test_damaged_checkpoints_are_passed_over_or_named(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, *interrupt("on_train_batch_end", 15))
    folder = tmp_path / "runs" / "version_0" / "checkpoints"
    newest, older, *_ = by_step(folder.glob("*.ckpt"))
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2] + b"\0" * 512 + whole[len(whole) // 2 + 512 :])
    with pytest.raises(SystemExit):
        fit(tmp_path, "--ckpt_path", str(newest))
    assert f"{newest.name}: " in (said := capsys.readouterr().err)
    assert "damaged" in said or "not a readable checkpoint" in said
    fit(tmp_path, *LAST)
    assert f"from {older}" in capsys.readouterr().out


@pytest.mark.parametrize(("how", "code"), [("sigterm", 0), ("ctrl-c", 1)])
@pytest.mark.parametrize(("hook", "call", "said"), [
    ("on_train_batch_end", 15, "Stopped. Step "),
    ("on_train_start", 0, "Stopped. Nothing was saved: start it again."),
])  # fmt: skip
def test_what_is_said_of_a_run_that_was_stopped_is_true(tmp_path, how, code, hook, call, said):
    config = write_config(tmp_path)
    where = ["--trainer.default_root_dir", str(tmp_path / "runs")]
    done = warm_runs.start(["main.py", "fit", "--config", str(config), *where, *interrupt(hook, call, how)], tmp_path)
    assert done.wait() == code, done.said
    assert said in done.said
    assert bool([*tmp_path.glob("runs/version_0/checkpoints/*.ckpt")]) == ("Step" in said)
    assert not (tmp_path / "runs" / "version_0" / LOCK).exists()
