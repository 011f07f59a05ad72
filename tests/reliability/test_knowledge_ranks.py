"""Injection and probing on several processes: the same facts in the same rows, the same trace, one file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests import warm_runs
from tests.knowledge_runs import trace, write_config
from tests.warm_runs import ranks

pytestmark = pytest.mark.slow

STILL = ["--model.init_args.backbone.init_args.config.attention_dropout=0", "--trainer.accelerator=cpu"]
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("knowledge_ranks")
    write_config(folder)
    sharded = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    sharded["init_args"] = {"data_parallel_size": 2, "tensor_parallel_size": 1, "process_group_backend": "gloo"}
    (folder / "fsdp.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 2, "strategy": sharded}}))
    return folder


def run(folder: Path, root: str, *options: str, verb: str = "fit", steps: int = 10) -> Path:
    """`main.py` in a process of its own; its newest run folder."""
    given = ["--config", "tiny.yaml", *options, *STILL, f"--trainer.max_steps={steps}"]
    call = ["main.py", verb, *given, f"--trainer.default_root_dir={folder / root}"]
    warm_runs.run(call, folder, ranks=ranks(options))
    return max((folder / root).iterdir(), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def alone(folder) -> Path:
    return run(folder, "alone", "--trainer.devices=1")


@pytest.mark.parametrize(
    "options",
    [DDP, [*DDP, "--trainer.accumulate_grad_batches=2"], ["--config", "fsdp.yaml"]],
    ids=["ddp", "ddp-accumulated", "fsdp2"],
)
def test_two_ranks_measure_what_one_does(folder, alone, options, request):
    pair = run(folder, request.node.callspec.id, *options)
    one, two = trace(alone), trace(pair)
    assert two.table == one.table
    assert {**two.header, "world_size": 1} == one.header
    assert two.steps.tolist() == one.steps.tolist()
    np.testing.assert_allclose(two.scores, one.scores, rtol=1e-5, atol=1e-4)
    assert len(list((folder / request.node.callspec.id).rglob("scores.bin"))) == 1


def test_two_ranks_go_on_from_one_and_predict_together(folder):
    run(folder, "mixed", "--trainer.devices=1", steps=6)
    mixed = run(folder, "mixed", *DDP, "--ckpt_path=last")
    whole = run(folder, "whole", "--trainer.devices=1")
    assert trace(mixed).steps.tolist() == trace(whole).steps.tolist()
    np.testing.assert_allclose(trace(mixed).scores, trace(whole).scores, rtol=1e-5, atol=1e-4)
    predicted = run(folder, "predicted", *DDP, f"--ckpt_path={mixed / 'checkpoints' / 'last.ckpt'}", verb="predict")
    rows = [json.loads(line) for line in (predicted / "knowledge" / "probes.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["target_mean"] for row in rows], trace(mixed).scores[-1, :, 0], rtol=1e-4)
