"""Six methods, each killed outright again and again: the files that they leave are those of a run that was not killed.

What is killed: optimizer steps, checkpoints half written, renames, appended lines, reports. ``-s`` prints the counts.
"""

from __future__ import annotations

import csv
import io
import json
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.run_folders import METRICS, version_number
from tests.forked_runs import Kill, run
from tests.small_stages import SMALL_STAGE
from tests.tiny_runs import assert_same, tensorboard_scalars

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMED = ("train/tokens_per_s", "train/answers_per_s", "train/texts_per_s")  # what no two runs share
FIT = [
    "--trainer.max_steps=9",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.val_check_interval=8",
    "--trainer.limit_val_batches=2",
    "--trainer.log_every_n_steps=1",
    "--checkpoint.every_n_train_steps=2",
]
LLAMA = [
    f"--model.init_args.backbone.init_args.config.{name}={size}"
    for name, size in {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}.items()
]
STEP, SAVE = "torch.optim:AdamW.step", "torch:save"
KILLED_FIT = [
    Kill(SAVE, 2, "half"),
    Kill(STEP, 4),
    Kill("os:replace", 1, "after", r"^last\.ckpt$"),
    Kill("os:replace", 1, "before", rf"^{METRICS}$"),
]


@dataclass
class Case:
    """A method that is killed.

    Args:
        command: of the main job.
        kills: one after the other; each time the same command is given again.
        goes_on: whether a run goes on in its folder; otherwise a new one finds what was kept.
    """

    command: list[str]
    kills: list[Kill] = field(default_factory=lambda: KILLED_FIT)
    goes_on: bool = True


def fit(config: str, *options: str) -> Case:
    return Case(["fit", "--config", str(ROOT / "configs" / config), *FIT, *options])


PAIRS = "--data.init_args.train.init_args.pairs=80"
APPEND = "lm.files.append_log:AppendLog.append"
KILLED_WHILE_ANSWERING = [
    Kill(APPEND, 3),
    Kill(APPEND, 2, "half"),
    Kill(APPEND, 2, "after"),
    Kill("os:replace", 1, "before", r"\.(md|jsonl)$"),
    Kill("os:replace", 1, "before", rf"^{METRICS}$"),
]


def solving(stage: str, *options: str) -> Case:
    command = ["predict", "--config", str(ROOT / f"configs/self_explore/{stage}.yaml"), *SMALL_STAGE, *options]
    return Case(command, KILLED_WHILE_ANSWERING, goes_on=False)


CASES = {
    "sft": fit("sft/mini.yaml", *LLAMA, PAIRS),
    "dpo": fit("dpo/mini.yaml", *LLAMA, PAIRS, "--model.init_args.reference=precomputed"),
    "kto": fit("kto/mini.yaml", *LLAMA, PAIRS),
    "reward_model": fit("reward_model/mini.yaml", *LLAMA, PAIRS),
    "evaluator": fit(
        "evaluator/mini.yaml",
        *LLAMA,
        "--data.init_args.train.init_args.direct=200",
        "--data.init_args.train.init_args.pairwise=200",
        "--data.init_args.batch_size=16",
    ),
    "instructir": fit(
        "instructir/mini.yaml", "--data.init_args.path.init_args.rounds=1", "--trainer.limit_val_batches=0"
    ),
    "evaluator_test": Case(
        [
            "test",
            *("--config", str(ROOT / "configs/evaluator/mini.yaml")),
            *LLAMA,
            "--model.init_args.kept_verdicts=log",
            "--model.init_args.judging.decoding.max_new_tokens=6",
            "--data.init_args.test=worlds.GradingWorld",
            "--data.init_args.test.init_args.seed=1",
            "--data.init_args.test.init_args.held_out=12",
        ],
        [Kill(APPEND, 1, "half"), Kill(APPEND, 1), Kill(APPEND, 1, "after"), *KILLED_WHILE_ANSWERING[-2:]],
        goes_on=False,
    ),
    "self_explore": solving("sample"),
    "biggen_bench": Case(
        [
            "test",
            *("--config", str(ROOT / "configs/biggen_bench/mini.yaml")),
            "--data.batch_size=4",
            "--data.instances.init_args.instances=3",
            "--model.decoding.temperature=1.0",
            "--model.kept_answers=log",
        ],
        KILLED_WHILE_ANSWERING,
        goes_on=False,
    ),
}


def start(case: Case, folder: Path, kill: Kill | None = None) -> int:
    again = ["--ckpt_path=last"] if case.goes_on and (folder / "runs").exists() else []
    quiet = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.default_root_dir=runs"]
    return run([*case.command, *quiet, *again], folder, kill)


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()[-4000:]


def newest(folder: Path) -> Path:
    return max((folder / "runs").glob("version_*"), key=version_number)


def kept_keys(folder: Path) -> list[str]:
    lines = [json.loads(line) for log in folder.rglob("*.rank0.jsonl") for line in log.read_bytes().splitlines()]
    return sorted(line["key"] for line in lines if "key" in line)


@pytest.mark.parametrize("name", CASES)
def test_killed_again_and_again_it_leaves_the_same_files(name: str, tmp_path: Path) -> None:
    case, whole, killed = CASES[name], tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert start(case, whole) == 0, said(whole)
    for kill in case.kills:
        assert start(case, killed, kill) == -signal.SIGKILL, (kill, said(killed))
        assert not (newest(killed) / METRICS).exists()
    assert start(case, killed) == 0, said(killed)
    compared = assert_same_files(newest(killed), newest(whole))
    assert kept_keys(killed) == kept_keys(whole)  # nothing was asked for twice, and nothing torn is left
    print(f"\ncounted: {len(case.kills)} kills of {name}; {compared} files compared")


def assert_same_files(run: Path, other: Path) -> int:
    """Every file of two run folders, but for times; returns how many there are."""
    names, expected = files(run), files(other)
    assert names == expected
    for name in names:
        if name == "verdicts.jsonl":
            assert_same_verdicts(run / name, other / name)
        else:
            assert_same(contents(run / name, run), contents(other / name, other))
    points = [repr(tensorboard_scalars(folder, skip=TIMED)) for folder in (run, other)]  # NaN is like itself here
    assert points[0] == points[1]
    return len(names)


def assert_same_verdicts(path: Path, other: Path) -> None:
    """What is asked again shares its batch with others than before, and float32 rounds the probabilities otherwise."""
    rows, expected = ([json.loads(line) for line in file.read_text().splitlines()] for file in (path, other))
    for row, like in zip(rows, expected, strict=True):
        assert row.pop("probabilities") == pytest.approx(like.pop("probabilities"), abs=1e-6)
        assert row == like


def files(run: Path) -> list[str]:
    """Below a run folder; TensorBoard's are compared by their points, for a run that goes on begins another."""
    found = (path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return sorted(name for name in found if "events.out.tfevents" not in name)


def contents(path: Path, run: Path) -> Any:
    """All that a file says, but for when and where."""
    if path.suffix == ".ckpt":
        return of_checkpoint(torch.load(path, weights_only=True))
    content = path.read_bytes()
    if path.name == METRICS:
        return untimed(json.loads(content))
    if path.name == "metrics.csv":
        return [untimed(row) for row in csv.DictReader(io.StringIO(content.decode()))]
    if path.name == "config.yaml":  # says from which checkpoint it went on
        content = re.sub(rb"^ckpt_path: .*$", b"", content, flags=re.MULTILINE)
    return content.replace(str(run.parent.parent).encode(), b"").replace(run.name.encode(), b"version")


def of_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    logs = checkpoint["run_logs"]
    logs["metrics"] = untimed(logs["metrics"])
    logs["pending"] = logs["pending"] and untimed(logs["pending"]["metrics"])
    logs["lengths"] = {name: length for name, length in logs["lengths"].items() if "tfevents" not in name}
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    del progress["optimizer"]["zero_grad"]  # Lightning counts one more after a resume, and never looks at it
    return checkpoint


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMED}
