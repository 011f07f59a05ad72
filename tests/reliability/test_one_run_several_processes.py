"""A run belongs to those that write it: one process, or all of its ranks together, and what they leave is used once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callbacks.run_folders import read_header, resumable_checkpoint
from tests.forked_runs import run, start
from tests.tiny_runs import csv_rows, tensorboard_scalars, write_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds, on a machine that has much else to do


def step_of(folder: Path) -> int:
    checkpoint = resumable_checkpoint(folder)
    header = None if checkpoint is None else read_header(checkpoint)
    return 0 if header is None else header["global_step"]


def test_a_live_run_is_its_own_and_a_killed_one_logs_every_step_once(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    fit = ["fit", "--config", config, "--trainer.default_root_dir=runs"]
    folder = tmp_path / "runs" / "version_0"
    first = start([*fit, "--trainer.max_steps=1000000"], tmp_path)
    try:
        deadline = time.monotonic() + PATIENCE
        while not step_of(folder):
            assert os.waitpid(first, os.WNOHANG) == (0, 0), (tmp_path / "said.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = (folder / "config.yaml").read_bytes()
        assert run([*fit, "--ckpt_path=last"], tmp_path) == 1
        said = (tmp_path / "said.txt").read_text()
        assert f"error: runs/version_0 is being written by process {first} on " in said
        assert (folder / "config.yaml").read_bytes() == before
        assert os.waitpid(first, os.WNOHANG) == (0, 0)  # and the first goes on
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    steps = step_of(folder) + 5
    assert run([*fit, "--ckpt_path=last", f"--trainer.max_steps={steps}"], tmp_path) == 0
    assert [step for step, _ in tensorboard_scalars(folder)["train/loss"]] == list(range(steps))
    assert [row["step"] for row in csv_rows(folder) if "train/loss" in row] == [str(step) for step in range(steps)]


def test_a_signal_to_one_of_two_ranks_ends_both(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    fit = ["fit", "--config", config, "--trainer.default_root_dir=runs", "--trainer.max_steps=1000000"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    name = "--trainer.callbacks"
    told = [f"{name}+=tests.tiny_runs.Interrupt", f"{name}.hook=on_train_batch_end", f"{name}.call=20"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *fit, *two, *told, f"{name}.how=sigterm", f"{name}.rank=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = tmp_path / "runs" / "version_0"
    step = step_of(folder)
    assert step == 10  # after the batch that was on its way, of two a step
    assert f"Stopped. Step {step} is saved in " in done.stdout
    assert not (folder / "metrics.json").exists()
    goes_on = [*fit[:-1], f"--trainer.max_steps={step + 2}", "--ckpt_path=last"]
    assert run(goes_on, tmp_path) == 0, (tmp_path / "said.txt").read_text()
    assert (folder / "metrics.json").exists()
