"""A method of two models and two heads on one process and on two, whole or sharded: the same weights in all stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cli.trainer_cli import main
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests.reliability.two_ranks import ROOT, on_two_ranks
from tests.stand_ins import LLAMA
from tests.two_models import ENCODER, by_part

pytestmark = pytest.mark.slow

MODELS = {
    "backbone": {"class_path": "ScratchBackbone", "init_args": {"architecture": "llama", "config": LLAMA}},
    "embedder": {"class_path": "ScratchEncoder", "init_args": {"architecture": "llama", "config": ENCODER}},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
}
STAGES = {
    "all": {"aligner": {"lr": 0.05}, "embedder": {"lr": 0.002}},
    "align": {"aligner": {"lr": 0.05}, "embedder": {"frozen": True}, "model": {"frozen": True}},
    "instruct": {
        "aligner": {"start": "{run}", "frozen": True},
        "embedder": {"start": "{run}", "lr": 0.002},
        "model": {"start": "{run}"},
    },
}
WAYS = {
    "one": ["--trainer.devices=1"],
    "ddp": ["--trainer.devices=2", "--trainer.strategy=ddp"],
    "fsdp": [f"--config={ROOT}/configs/trainer/fsdp.yaml", "--trainer.accelerator=cpu", "--trainer.devices=2"],
}


def config(way: str, stage: str) -> str:
    parts = json.loads(json.dumps(STAGES[stage]).replace("{run}", f"{way}-align/version_0"))
    config = {
        "model": {"class_path": "tests.two_models.Finding", "init_args": MODELS | {"parts": parts}},
        "data": {"class_path": "tests.two_means.UnevenRows"},
        "trainer": {"accelerator": "cpu", "max_steps": 3, "gradient_clip_val": 0.5, "accumulate_grad_batches": 2},
    }
    Path(name := f"{way}-{stage}.yaml").write_text(json.dumps(config))
    return name


def weights(root: str) -> dict[str, torch.Tensor]:
    return open_checkpoint(find_checkpoint(f"{root}/version_0"))["state_dict"]


def test_all_parameters_of_all_parts_take_the_steps_of_one_rank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fit(way: str, stage: str) -> list[str]:
        root = f"--trainer.default_root_dir={way}-{stage}"
        return ["fit", f"--config={config(way, stage)}", *WAYS[way], root]

    half = [*fit("fsdp", "all"), "--trainer.max_steps=2", "--trainer.default_root_dir=half"]
    on = [*fit("fsdp", "all"), "--ckpt_path=half/version_0", "--trainer.default_root_dir=on"]
    on_two_ranks([*(fit(way, stage) for way in ("ddp", "fsdp") for stage in STAGES), half, on])
    for stage in STAGES:
        main(fit("one", stage))
        expected = weights(f"one-{stage}")
        assert all(by_part(expected).values())
        for way in ("ddp", "fsdp"):
            found = weights(f"{way}-{stage}")
            said = lambda told, way=way, stage=stage: f"{way} {stage}: {told}"  # noqa: E731
            torch.testing.assert_close(found, expected, atol=1e-9, rtol=0, msg=said)
    align, instruct = (by_part(weights(f"one-{stage}")) for stage in ("align", "instruct"))
    torch.testing.assert_close(instruct["aligner"], align["aligner"], atol=0, rtol=0)
    for part in ("model", "embedder"):
        assert all((weight != align[part][name]).any() for name, weight in instruct[part].items())
    main([*fit("one", "all"), "--trainer.default_root_dir=half", "--ckpt_path=last"])
    for gone_on in ("on", "half"):  # a sharded run, on two ranks and on one
        torch.testing.assert_close(weights(gone_on), weights("one-all"), atol=1e-9, rtol=0)
