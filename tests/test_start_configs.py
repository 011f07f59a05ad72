"""The configs that a user copies for a small instruct model: what they log, that they validate, what they train."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from tests.paper_scale import CONFIGS

SMALL = {
    "sft": ["--data.train.init_args.pairs=40"],
    "dpo": ["--data.train.init_args.pairs=40"],
    "kto": ["--data.train.init_args.pairs=80"],
    "reward_model": ["--data.train.init_args.pairs=40"],
    "grpo": ["--data.train.init_args.pairs=20", "--model.decoding.max_new_tokens=4"],
    "evaluator": ["--data.train.init_args.direct=20", "--data.train.init_args.pairwise=20"],
    "self_explore": ["--data.train.init_args.train=40"],
    "janus": ["--data.train.init_args.instructions=16"],
}
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]


def test_there_is_one_for_each_method_of_training() -> None:
    assert sorted(path.parent.name for path in CONFIGS.glob("*/start.yaml")) == sorted(SMALL)


@pytest.mark.parametrize("method", SMALL)
def test_it_logs_every_step_and_validates_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """On a model that knows nothing, with the tokens of its own folder; the real one is in docs/generation.md."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    config = CONFIGS / method / "start.yaml"
    assert "name_or_path: builtin:smollm2" in config.read_text()
    model = ["--model.backbone.name_or_path=builtin:untrained", "--trainer.limit_val_batches=2"]
    built = main(["fit", "--config", str(config), *CPU, *model, *SMALL[method]])
    trained = {name for name, p in built.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name or "score" in name for name in trained)
    run = Path(f"runs/{method}/start/version_0")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["step"] >= 2
    assert ("val/reward" if method == "grpo" else "val/loss") in metrics
    with (run / "metrics.csv").open(newline="") as file:
        logged = [row["step"] for row in csv.DictReader(file) if row["train/loss"]]
    assert len(logged) == metrics["step"]
