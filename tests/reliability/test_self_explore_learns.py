"""The first stages of Self-Explore in earnest: a model that learns, fails now and then, and finds where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[2] / "configs" / "self_explore"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
WORLD = [
    "--data.train.init_args.seed=0",
    "--data.train.init_args.steps=2",
    "--data.train.init_args.op_weights=[1, 1, 0]",
    "--data.train.init_args.train=3000",
]


def run(verb: str, stage: str, *options: str) -> tuple[Path, dict]:
    root = Path("runs") / stage
    main([verb, "--config", str(HERE / f"{stage}.yaml"), *CPU, f"--trainer.default_root_dir={root}", *options])
    return root / "version_0", json.loads((root / "version_0" / "metrics.json").read_text())


def test_a_model_learns_samples_and_finds_its_first_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    steps = ["--trainer.max_steps=250", "--model.lr_scheduler.init_args.total_steps=250"]
    learnt, _ = run("fit", "sft", *WORLD, *steps)
    weights = max(learnt.glob("checkpoints/*.ckpt"))
    found = f"--ckpt_path={weights}"
    assert run("test", "test", *WORLD, found)[1]["test/accuracy"] > 0.3
    few = "--data.train.init_args.train=500"
    sampled, counts = run("predict", "sample", *WORLD, found, "--model.num_samples=4", few)
    assert counts["sample/mixed_questions"] > 0.3 * counts["sample/questions"]
    _, told = run("predict", "explore", *WORLD, found, "--model.k=8", f"--data.pairs={sampled / 'pairs.jsonl'}")
    assert told["explore/pit_accuracy"] > 0.5
    assert told["explore/granular_pairs"] == told["explore/pairs"] - sum(
        value for name, value in told.items() if name.startswith("explore/dropped/")
    )
