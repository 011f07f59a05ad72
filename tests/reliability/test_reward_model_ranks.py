"""A reward model on one process and on two, whole and sharded: the same rewards, steps and checkpoints."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests import warm_runs
from tests.stand_ins import published
from tests.warm_runs import ROOT, ranks

pytestmark = pytest.mark.slow

MINI = str(ROOT / "configs" / "reward_model" / "mini.yaml")
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
FSDP = ["--config", "fsdp.yaml"]
BASE = ["--model.backbone=PretrainedBackbone", "--model.backbone.name_or_path=base", "--data.tokenizer=null"]
BF16 = ["--model.backbone.dtype=bfloat16", "--model.backbone.lora.r=4"]
SGD = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    published(folder / "base", dtype="bfloat16", max_position_embeddings=512)
    sharded = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    sharded["init_args"] = {"data_parallel_size": 2, "tensor_parallel_size": 1, "process_group_backend": "gloo"}
    (folder / "fsdp.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 2, "strategy": sharded}}))
    return folder


def fit(folder: Path, root: str, *options: str, steps: int = 3) -> Path:
    """``main.py fit`` of the miniature, made smaller; its run folder."""
    given = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.log_every_n_steps=1"]
    given += ["--trainer.enable_progress_bar=false", f"--trainer.max_steps={steps}", "--trainer.val_check_interval=3"]
    given += ["--data.train.init_args.pairs=80", "--data.batch_size=8", f"--trainer.default_root_dir={root}"]
    warm_runs.run(["main.py", "fit", "--config", MINI, *given, *options], folder, ranks=ranks(options))
    return folder / root / "version_0"


def curve(run: Path, name: str = "train/loss") -> list[float]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def checkpoint(run: Path) -> dict:
    return open_checkpoint(find_checkpoint(run))


@pytest.fixture(scope="module")
def alone(folder):
    return fit(folder, "alone", *BASE, steps=5)


def test_two_ranks_take_the_steps_of_one_and_measure_the_same(folder):
    one = fit(folder, "one", *BASE, *SGD)
    for name, options in {"ranks": DDP, "both": [*DDP, "--trainer.accumulate_grad_batches=2"]}.items():
        interval = ["--trainer.val_check_interval=6"] if name == "both" else []
        other = fit(folder, name, *BASE, *SGD, *options, *interval)
        torch.testing.assert_close(checkpoint(other)["state_dict"], checkpoint(one)["state_dict"], atol=1e-6, rtol=1e-5)
        for logged in ("train/loss", "train/rewards/margin", "val/loss", "val/rewards/accuracy", "val/rewards/std"):
            assert curve(other, logged) == pytest.approx(curve(one, logged), abs=1e-5)


def test_a_sharded_run_is_the_same_run_goes_on_on_one_rank_and_is_exported(folder, alone):
    run = fit(folder, "sharded", *BASE, *FSDP)
    assert find_checkpoint(run).is_dir()
    assert curve(run) == pytest.approx(curve(alone)[:3], abs=1e-5)
    assert checkpoint(run)["state_dict"]["model.score.weight"].shape == (1, 32)  # one row cannot be cut in two
    out = folder / "exported"
    warm_runs.run(["export.py", str(run), str(out)], folder)
    opened = AutoModelForSequenceClassification.from_pretrained(out, num_labels=1)
    torch.testing.assert_close(opened.score.weight, checkpoint(run)["state_dict"]["model.score.weight"], atol=0, rtol=0)

    fit(folder, "sharded", *BASE, "--ckpt_path=last", steps=5)
    assert find_checkpoint(run).is_file()
    assert curve(run) == pytest.approx(curve(alone), abs=1e-5)
    one, other = checkpoint(alone), checkpoint(run)
    torch.testing.assert_close(other["state_dict"], one["state_dict"], atol=2e-5, rtol=0)
    assert other["language_model"]["reward"] == pytest.approx(one["language_model"]["reward"], abs=1e-5)


def test_adapters_and_a_float32_head_on_a_sharded_bf16_base(folder):
    one = fit(folder, "lora-one", *BASE, *BF16)
    run = fit(folder, "lora-sharded", *BASE, *BF16, *FSDP)
    assert curve(run) == pytest.approx(curve(one), abs=1e-2)  # sums of bf16 products
    saved = checkpoint(run)["state_dict"]
    assert saved.keys() == checkpoint(one)["state_dict"].keys()
    head = saved["model.base_model.model.score.modules_to_save.default.weight"]
    assert head.dtype == torch.float32


def test_a_run_is_the_base_of_a_sharded_one(folder, alone):
    """Stage two on two ranks: the head comes along; the base is told apart by its weights."""
    base = ["--model.backbone=TrainedBackbone", "--model.backbone.path=alone/version_0", "--data.tokenizer=null"]
    one, run = fit(folder, "stage-one", *base), fit(folder, "stage-sharded", *base, *FSDP)
    assert curve(run) == pytest.approx(curve(one), abs=1e-5)
    assert curve(run)[0] < curve(alone)[0]
    marks = [checkpoint(where)["language_model"]["fingerprint"] for where in (one, run)]
    assert marks[0] == marks[1]
    assert marks[0]["head"] == "trained"
