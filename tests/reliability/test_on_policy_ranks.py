"""Learning from fresh answers on one process and on two, whole or sharded: the same answers, the same steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cli.trainer_cli import main
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests.conversation_files import jsonl
from tests.reliability.two_ranks import ROOT, on_two_ranks
from tests.stand_ins import LLAMA, published
from tests.tiny_runs import logged_numbers
from worlds import Manners

pytestmark = pytest.mark.slow

SCRATCH = {"architecture": "llama", "config": LLAMA | {"max_position_embeddings": 128, "initializer_range": 0.2}}
BACKBONES = {
    "copy": {"class_path": "ScratchBackbone", "init_args": SCRATCH},
    "lora": {"class_path": "PretrainedBackbone", "init_args": {"name_or_path": "base", "lora": {"r": 2}}},
}
TIMED = {"train/tokens", "train/tokens_per_s", "train/rollout/seconds", "epoch"}  # cut pairs of one prompt share less
DDP, FSDP = ["--trainer.strategy=ddp"], [f"--config={ROOT}/configs/trainer/fsdp.yaml"]
WAYS = {
    "copy-ddp": DDP,
    "copy-ddp-accumulated": [*DDP, "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=6"],
    "copy-fsdp": FSDP,
    "lora-ddp-accumulated": [*DDP, "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=6"],
}
SEVERAL = [*FSDP, "--model.updates_per_rollout=3"]


def configured(kind: str) -> str:
    """A config of three steps of eight prompts, then validation on pairs; in the present folder."""
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    model = {"backbone": BACKBONES[kind], "optimizer": optimizer, "rpo_alpha": 0.5}
    tokenizer = {"class_path": "PretrainedTokenizer", "init_args": {"name_or_path": "base"}}
    data = {"train": "records.jsonl", "val": "records.jsonl", "tokenizer": tokenizer, "batch_size": 8}
    config = {
        "model": {"class_path": "tests.on_policy_stand_ins.Longer", "init_args": model},
        "data": {"class_path": "OnPolicyPrompts", "init_args": data},
        "trainer": {"accelerator": "cpu", "max_steps": 3, "log_every_n_steps": 1, "val_check_interval": 3},
    }
    Path(f"{kind}.yaml").write_text(json.dumps(config))
    return f"--config={kind}.yaml"


def logs(run: str) -> list[dict[str, float]]:
    return logged_numbers(Path(run, "version_0"), TIMED)


def test_ranks_sharding_and_accumulation_draw_and_learn_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published(tmp_path / "base", max_position_embeddings=128, initializer_range=0.2)
    jsonl(tmp_path / "records.jsonl", *Manners(pairs=24, seed=5).records("train"))
    configs = {kind: configured(kind) for kind in BACKBONES}

    def fit(kind, name, *options):
        return ["fit", configs[kind], *options, f"--trainer.default_root_dir={name}"]

    two = ["--trainer.accelerator=cpu", "--trainer.devices=2"]
    broken_off = [
        fit("copy", "whole", *SEVERAL, *two),
        fit("copy", "broken", *SEVERAL, *two, "--trainer.max_steps=1"),
        fit("copy", "broken", *SEVERAL, *two, "--ckpt_path=last"),
    ]
    on_two_ranks([fit(name[:4], name, *options, *two) for name, options in WAYS.items()] + broken_off)
    for kind in BACKBONES:
        main(fit(kind, kind, "--trainer.devices=1"))
    for name in WAYS:
        found, expected = (
            open_checkpoint(find_checkpoint(f"{run}/version_0"))["state_dict"] for run in (name, name[:4])
        )
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0, msg=lambda said, name=name: f"{name}: {said}")
        assert len(logs(name)) == len(logs(name[:4])) == 4
        for one, other in zip(logs(name), logs(name[:4]), strict=True):
            one.pop("train/rewards/accuracy", None), other.pop("train/rewards/accuracy", None)  # ties, by rounding
            assert one == pytest.approx(other, rel=1e-4, abs=1e-4), name
    whole, resumed = (open_checkpoint(find_checkpoint(f"{run}/version_0"))["state_dict"] for run in ("whole", "broken"))
    torch.testing.assert_close(resumed, whole, atol=0, rtol=0)  # it went on within what its first step had drawn
