"""The same training on one process and on several: real processes, real checkpoints, the command line as it is."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests import warm_runs
from tests.stand_ins import LLAMA, published
from tests.warm_runs import ranks

pytestmark = pytest.mark.slow

DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}}  # a step of it is the gradient
ADAM = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
SCRATCH = {"class_path": "ScratchBackbone"}
SCRATCH["init_args"] = {"architecture": "llama", "config": LLAMA | {"tie_word_embeddings": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    published(folder / "base", dtype="bfloat16")
    np.save(folder / "tokens.npy", np.random.default_rng(0).integers(0, 256, 4000).astype("uint16"))
    sharded = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    sharded["init_args"] = {"data_parallel_size": 2, "tensor_parallel_size": 1, "process_group_backend": "gloo"}
    (folder / "fsdp.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 2, "strategy": sharded}}))
    return folder


def fit(folder, root, *arguments, method="KnowledgeProbe", backbone=SCRATCH, optimizer=ADAM, steps=3):
    """Run ``main.py fit`` until ``steps``; returns its run folder."""
    tokenizer = {"class_path": "PretrainedTokenizer", "init_args": {"name_or_path": str(folder / "base")}}
    data = {"train": str(folder / "tokens.npy"), "tokenizer": tokenizer, "seq_len": 16, "batch_size": 8}
    quiet = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    config = {
        "model": {"class_path": method, "init_args": {"backbone": backbone, "optimizer": optimizer}},
        "data": {"class_path": "Corpus", "init_args": data},
        "trainer": quiet | {"max_steps": steps, "gradient_clip_val": 0.5, "default_root_dir": str(folder / root)},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    warm_runs.run(["main.py", "fit", "--config", "run.yaml", *arguments], folder, ranks=ranks(arguments))
    return folder / root / "version_0"


def curve(run, name="train/loss"):
    with open(run / "metrics.csv", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def checkpoint(run):
    return open_checkpoint(find_checkpoint(run))


def logits(model):
    return model(torch.arange(24).view(2, 12)).logits


@pytest.fixture(scope="module")
def alone(folder):
    return fit(folder, "alone", steps=5)


@pytest.mark.parametrize("method", ["KnowledgeProbe", "tests.stand_ins.Answers"])
def test_ranks_and_accumulation_take_the_same_steps(folder, method):
    """Answers counts another number of tokens on every rank and micro-batch."""
    given = {"method": method, "optimizer": SGD, "steps": 2}
    name = method.rpartition(".")[2]
    one = fit(folder, f"{name}-one", **given)
    cuts = {
        "accumulated": ["--trainer.accumulate_grad_batches=2"],
        "ranks": DDP,
        "both": [*DDP, "--trainer.accumulate_grad_batches=2"],
    }
    expected = checkpoint(one)["state_dict"]
    for cut, arguments in cuts.items():
        other = fit(folder, f"{name}-{cut}", *arguments, **given)
        torch.testing.assert_close(checkpoint(other)["state_dict"], expected, atol=1e-6, rtol=0)
        for logged in ("train/loss", "train/grad_norm"):
            assert curve(other, logged) == pytest.approx(curve(one, logged), abs=1e-5)
        assert curve(other, "train/tokens") == curve(one, "train/tokens") == [128, 256]


def test_a_sharded_run_is_the_same_run_goes_on_on_one_rank_and_is_exported(folder, alone):
    run = fit(folder, "sharded", "--config", "fsdp.yaml")
    assert find_checkpoint(run).is_dir()
    assert curve(run) == pytest.approx(curve(alone)[:3], abs=1e-5)

    out = folder / "exported"
    warm_runs.run(["export.py", str(run), str(out)], folder)
    halfway = logits(AutoModelForCausalLM.from_pretrained(out))

    fit(folder, "sharded", "--ckpt_path=last", steps=5)
    assert find_checkpoint(run).is_file()
    assert curve(run) == pytest.approx(curve(alone), abs=1e-5)
    one, other = checkpoint(alone), checkpoint(run)
    torch.testing.assert_close(other["state_dict"], one["state_dict"], atol=2e-5, rtol=0)
    moments, its_moments = (c["optimizer_states"][0]["state"] for c in (one, other))
    torch.testing.assert_close(its_moments, moments, atol=1e-5, rtol=1e-4)
    assert (logits(AutoModelForCausalLM.from_pretrained(out)) - halfway).abs().max() == 0


def test_a_run_on_one_rank_goes_on_sharded(folder, alone):
    run = fit(folder, "to-be-sharded")
    fit(folder, "to-be-sharded", "--config", "fsdp.yaml", "--ckpt_path=last", steps=5)
    assert curve(run) == pytest.approx(curve(alone), abs=1e-5)


def test_adapters_on_a_sharded_bf16_base(folder):
    arguments = {"name_or_path": str(folder / "base"), "dtype": "bfloat16", "lora": {"r": 4}}
    backbone = {"class_path": "PretrainedBackbone", "init_args": arguments}
    one = fit(folder, "lora-one", backbone=backbone)
    run = fit(folder, "lora-sharded", "--config", "fsdp.yaml", backbone=backbone)
    assert curve(run) == pytest.approx(curve(one), abs=1e-2)  # sums of bf16 products
    saved = checkpoint(run)["state_dict"]
    assert saved.keys() == checkpoint(one)["state_dict"].keys()
    assert all(".lora_" in name for name in saved)
