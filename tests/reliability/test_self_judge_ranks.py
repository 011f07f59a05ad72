"""SELF-JUDGE on one process and on two, whole or sharded: the same answers, verdicts and steps; the same judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cli.trainer_cli import main
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests.reliability.two_ranks import ROOT, on_two_ranks
from tests.self_judge_stand_ins import symbols
from tests.tiny_runs import logged_numbers

pytestmark = pytest.mark.slow

DDP, FSDP = ["--trainer.strategy=ddp"], [f"--config={ROOT}/configs/trainer/fsdp.yaml"]
WAYS = {
    "copy-ddp": [*DDP, "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=4"],
    "copy-fsdp": FSDP,
    "lora-ddp": DDP,
}
TIMED = {"train/tokens", "train/tokens_per_s", "train/rollout/seconds", "epoch"}


def configured(kind: str) -> str:
    """A config of two steps of eight prompts, then validation on six pairs; in the present folder."""
    base = {"name_or_path": "base"} | ({"lora": {"r": 2}} if kind == "lora" else {})
    model = {
        "backbone": {"class_path": "PretrainedBackbone", "init_args": base},
        "decoding": {"max_new_tokens": 6, "temperature": 1.0},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}},
    }
    world = {"class_path": "Alternating", "init_args": {"pairs": 16, "judged": 6}}
    data = {"train": world, "template": f"{ROOT}/configs/self_judge/alternating/template.yaml", "batch_size": 8}
    config = {
        "model": {"class_path": "SelfJudge", "init_args": model},
        "data": {"class_path": "JudgedPrompts", "init_args": data},
        "trainer": {"accelerator": "cpu", "max_steps": 2, "log_every_n_steps": 1, "val_check_interval": 2},
    }
    Path(f"{kind}.yaml").write_text(json.dumps(config))
    return f"--config={kind}.yaml"


def logs(run: str) -> list[dict[str, float]]:
    return logged_numbers(Path(run, "version_0"), TIMED)


def test_ranks_sharding_and_accumulation_judge_and_learn_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    symbols(tmp_path / "base")
    configs = {kind: configured(kind) for kind in ("copy", "lora")}

    def fit(kind, name, *options):
        return ["fit", configs[kind], *options, f"--trainer.default_root_dir={name}"]

    two = ["--trainer.accelerator=cpu", "--trainer.devices=2"]
    on_two_ranks([fit(name[:4], name, *options, *two) for name, options in WAYS.items()])
    for kind in configs:
        main(fit(kind, kind, "--trainer.devices=1"))
    for name in WAYS:
        found, expected = (
            open_checkpoint(find_checkpoint(f"{run}/version_0"))["state_dict"] for run in (name, name[:4])
        )
        torch.testing.assert_close(found, expected, atol=5e-6, rtol=0, msg=lambda said, name=name: f"{name}: {said}")
        for one, other in zip(logs(name), logs(name[:4]), strict=True):
            for ties in ("train/rewards/accuracy", "val/rewards/accuracy"):
                one.pop(ties, None), other.pop(ties, None)  # by rounding
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4), name
