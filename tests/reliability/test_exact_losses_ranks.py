"""A loss of several means on one process and on two, whole or sharded: the same steps to the last digits of float64."""

from __future__ import annotations

import json

import pytest
import torch

from cli.trainer_cli import main
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests.reliability.two_ranks import ROOT, on_two_ranks
from tests.stand_ins import LLAMA
from tests.two_means import STEPS

pytestmark = pytest.mark.slow

CONFIG = {
    "model": {
        "class_path": "tests.two_means.TwoMeans",
        "init_args": {
            "backbone": {"class_path": "ScratchBackbone", "init_args": {"architecture": "llama", "config": LLAMA}},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}},
        },
    },
    "data": {"class_path": "tests.two_means.UnevenRows"},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": len(STEPS)},
}
WAYS = {"ddp": ["--trainer.strategy=ddp"], "fsdp": [f"--config={ROOT}/configs/trainer/fsdp.yaml"]}


def test_ranks_and_accumulation_take_the_steps_of_one_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(json.dumps(CONFIG))

    def fit(name, *options):
        return ["fit", "--config=two.yaml", *options, f"--trainer.default_root_dir={name}"]

    two = ["--trainer.accelerator=cpu", "--trainer.devices=2"]
    jobs = {
        f"{way}-{cut}": [*options, *two, f"--trainer.accumulate_grad_batches={cut}"]
        for way, options in WAYS.items()
        for cut in (1, 2)
    }
    on_two_ranks([fit(name, *options) for name, options in jobs.items()])
    main(fit("one"))
    weights = {name: open_checkpoint(find_checkpoint(f"{name}/version_0"))["state_dict"] for name in ("one", *jobs)}
    expected = weights.pop("one")
    assert all(weight.dtype == torch.float64 for weight in expected.values())
    for name, found in weights.items():
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0, msg=lambda said, name=name: f"{name}: {said}")
