"""The main job, killed outright again and again, ends bit by bit where an uninterrupted one does."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from callbacks.run_folders import METRICS, resumable_checkpoint
from lm.files.checkpoint_files import read_header
from tests import warm_runs
from tests.tiny_runs import assert_same, csv_rows, tensorboard_scalars
from tests.warm_runs import ROOT

pytestmark = pytest.mark.slow

TIMED = ("train/tokens_per_s", "probe/seconds_per_pass")  # what no two runs share
SMALL = {  # so small that what remains is mostly the start of a process; checkpoints are made often
    "trainer.accelerator": "cpu",
    "trainer.max_steps": 36,
    "trainer.accumulate_grad_batches": 2,
    "trainer.val_check_interval": 16,
    "trainer.limit_val_batches": 2,
    "trainer.log_every_n_steps": 1,
    "checkpoint.every_n_train_steps": 3,
    "data.init_args.batch_size": 4,
    "data.init_args.train.init_args.facts": 8,
    "model.init_args.backbone.init_args.config.hidden_size": 32,
    "model.init_args.backbone.init_args.config.intermediate_size": 64,
}
INJECTION = {"start_step": 7, "n_injections": 3, "interval": 6}
SEED = 20240617


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT / "configs" / "knowledge_probe"
    values = yaml.safe_load((folder / "mini.yaml").read_text())
    values["model"] = yaml.safe_load((folder / values["model"]).read_text())  # written out, to be changed below
    for key, value in SMALL.items():
        *path, last = key.split(".")
        section = values
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    for callback in values["trainer"]["callbacks"]:
        if callback["class_path"].endswith("KnowledgeInjection"):
            callback["init_args"] = INJECTION
    path = tmp_path_factory.mktemp("configs") / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(config: Path, root: Path, *options: str) -> warm_runs.Run:
    call = ["main.py", "fit", "--config", str(config), "--trainer.default_root_dir", str(root), *options]
    return warm_runs.start(call, config.parent, SEEDLING_CACHE=str(config.parent))


def break_off(run: warm_runs.Run, number: int, delay: float) -> None:
    """Sends a signal some time after the run has reported a step."""
    while "\nstep " not in run.said:
        assert not run.ended(), run.said
        time.sleep(0.005)
    time.sleep(delay)
    run.send(number)


def callback(name: str, **arguments: Any) -> list[str]:
    key = "--trainer.callbacks"
    return [f"{key}+=tests.tiny_runs.{name}", *(f"{key}.{argument}={value}" for argument, value in arguments.items())]


def checked(run: Path) -> int:
    """The step from which a broken-off run can go on; nothing claims that it has finished."""
    assert not (run / METRICS).exists()
    header = read_header(resumable_checkpoint(run) or Path())
    return 0 if header is None else header["global_step"]


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def assert_same_run(run: Path, other: Path) -> None:
    one, two = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (run, other))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "rng", "global_step"):
        assert_same(one[part], two[part])
    assert untimed(csv_rows(run)) == untimed(csv_rows(other))
    scalars, expected = tensorboard_scalars(run), tensorboard_scalars(other)
    for name in TIMED:
        assert [step for step, _ in scalars.pop(name)] == [step for step, _ in expected.pop(name)]
    assert scalars == expected
    for file in ("trace/scores.bin", "trace/probes.jsonl", "trace/header.json", "report.json", "report.md"):
        texts = [(folder / "knowledge" / file).read_bytes() for folder in (run, other)]
        assert texts[0].replace(str(run).encode(), b"") == texts[1].replace(str(other).encode(), b""), file
    metrics, expected_metrics = (json.loads((folder / METRICS).read_text()) for folder in (run, other))
    assert untimed([metrics]) == untimed([expected_metrics])


def test_killed_six_times_and_stopped_once(config: Path, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    uninterrupted = start(config, tmp_path / "whole")
    run = tmp_path / "broken" / "version_0"
    kills = [
        callback("Interrupt", hook="on_before_backward", call=rng.randrange(7, 14) | 1, how="kill"),  # mid-accumulation
        callback("KillWhileWriting", call=rng.randrange(1, 3)),
        callback("Interrupt", hook="on_train_batch_end", call=rng.randrange(2, 9), how="kill"),
        callback("Interrupt", hook="on_validation_batch_start", call=1, how="kill"),
    ]
    steps = []
    for options in kills:
        process = start(config, tmp_path / "broken", *(["--ckpt_path", "last"] if steps else []), *options)
        assert process.wait() == -signal.SIGKILL, process.said
        steps.append(checked(run))
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        process = start(config, tmp_path / "broken", "--ckpt_path", "last")
        break_off(process, number, rng.uniform(0, 0.05))
        assert process.wait() == (0 if number == signal.SIGTERM else -number), process.said
        steps.append(checked(run))
    assert f"Stopped. Step {steps[-1]} is saved in {run}" in process.said
    assert steps == sorted(steps)
    assert steps[0] > 0
    assert steps[-2] < steps[-1] < SMALL["trainer.max_steps"]  # SIGTERM saved what it found
    last = start(config, tmp_path / "broken", "--ckpt_path", "last")
    assert last.wait() == uninterrupted.wait() == 0, last.said + uninterrupted.said
    assert_same_run(run, tmp_path / "whole" / "version_0")
    print(f"\ncounted: {len(steps)} kills of knowledge_probe, one of them a SIGTERM")
