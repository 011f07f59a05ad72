"""Preference learning on one process and on several: the same steps, the same logs, one reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests import warm_runs
from tests.conversation_files import jsonl
from tests.stand_ins import LLAMA, published
from tests.tiny_runs import logged_numbers
from tests.warm_runs import ranks
from worlds import Manners

pytestmark = pytest.mark.slow

DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
SCRATCH = {
    "class_path": "ScratchBackbone",
    "init_args": {"architecture": "llama", "config": LLAMA | {"max_position_embeddings": 128}},
}
DATA = {"DPO": "PreferencePairs", "KTO": "LabelledAnswers", "SFT": "Instructions"}
TIMED = ("train/tokens", "train/tokens_per_s", "step", "epoch")  # cut pairs of one prompt share less


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("preference_ranks")
    published(folder / "base", max_position_embeddings=128)
    records = Manners(pairs=48, seed=5).records("train")
    for number, record in enumerate(records):  # lengths and weights that no two ranks share
        record["chosen"] += " Indeed." * (number % 5)
        record["weight"] = 0.5 + number % 3
        record["output"] = record["chosen"]
    jsonl(folder / "records.jsonl", *records)
    sharded = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    sharded["init_args"] = {"data_parallel_size": 2, "tensor_parallel_size": 1, "process_group_backend": "gloo"}
    (folder / "fsdp.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 2, "strategy": sharded}}))
    return folder


def fit(folder, root, *arguments, method="DPO", backbone=SCRATCH, steps=3, cache="cache", **options):
    """Run ``main.py fit`` until ``steps``; returns its run folder."""
    tokenizer = {"class_path": "PretrainedTokenizer", "init_args": {"name_or_path": str(folder / "base")}}
    source = str(folder / "records.jsonl")
    data = {"train": source, "val": source, "tokenizer": tokenizer, "batch_size": 8}
    quiet = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    config = {
        "model": {"class_path": method, "init_args": {"backbone": backbone, "optimizer": SGD} | options},
        "data": {"class_path": DATA[method], "init_args": data},
        "trainer": quiet | {"max_steps": steps, "default_root_dir": str(folder / root), "val_check_interval": 1},
        "checkpoint": {"every_n_train_steps": 1},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    call = ["main.py", "fit", "--config", "run.yaml", *arguments]
    warm_runs.run(call, folder, ranks=ranks(arguments), SEEDLING_CACHE=str(folder / cache))
    return folder / root / "version_0"


def logs(run: Path) -> list[dict[str, float]]:
    return logged_numbers(run, TIMED)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return open_checkpoint(find_checkpoint(run))["state_dict"]


def assert_same_run(run: Path, other: Path, atol: float = 1e-6) -> None:
    torch.testing.assert_close(weights(run), weights(other), atol=atol, rtol=0)
    rows, expected = logs(run), logs(other)
    for first in (rows[0], expected[0]):  # the policy still is its reference: every pair a tie, which rounding decides
        first.pop("train/rewards/accuracy", None)
    for one, two in zip(rows, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-4)


CASES = {
    "sigmoid": {},
    "rpo": {"rpo_alpha": 1.0},
    "orpo": {"loss": "orpo", "nll_reduction": "prompt+completion"},
    "precomputed": {"reference": "precomputed"},
    "sft": {"method": "SFT"},
}


@pytest.mark.parametrize("case", CASES)
def test_ranks_and_accumulation_take_the_same_steps(folder, case):
    one = fit(folder, f"{case}-one", **CASES[case])
    accumulated = [
        "--trainer.accumulate_grad_batches=2",
        "--trainer.val_check_interval=2",
    ]  # which counts micro-batches
    for cut, arguments in {"ranks": DDP, "both": [*DDP, *accumulated]}.items():
        options = CASES[case] | {"cache": f"cache-{cut}"}  # two ranks compute the sums themselves
        assert_same_run(fit(folder, f"{case}-{cut}", *arguments, **options), one)


def test_the_reference_point_of_kto_is_that_of_all_ranks(folder):
    """At the first step it is 0 whatever the cut; later it is a matter of the micro-batch (docs/preference.md)."""
    one = fit(folder, "kto-one", method="KTO", steps=1)
    two = fit(folder, "kto-ranks", *DDP, method="KTO", steps=1)
    torch.testing.assert_close(weights(two), weights(one), atol=1e-6, rtol=0)
    assert logs(two)[0]["train/loss"] == pytest.approx(logs(one)[0]["train/loss"], abs=1e-6)


@pytest.mark.parametrize("reference", ["copy", "adapter_off", "adapter_named", "precomputed"])
def test_a_sharded_policy_has_the_reference_of_a_whole_one(folder, reference):
    """FSDP2: a copy is a root of its own; switched adapters stay trainable."""
    backbone = SCRATCH
    if reference.startswith("adapter"):
        given = {"name_or_path": str(folder / "base"), "lora": {"r": 4}}
        backbone = {"class_path": "PretrainedBackbone", "init_args": given}
    options = {"backbone": backbone, "reference": reference}
    one = fit(folder, f"{reference}-whole", **options)
    run = fit(folder, f"{reference}-sharded", "--config", "fsdp.yaml", cache="cache-sharded", **options)
    assert find_checkpoint(run).is_dir()
    assert_same_run(run, one, atol=1e-5)
    moved = [value for value in weights(run).values() if value.abs().max() > 0]
    assert moved
    assert logs(run)[-1] != logs(run)[0]


@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_a_sharded_scratch_run_goes_on_with_its_own_reference(folder, reference):
    whole = fit(folder, f"{reference}-uninterrupted", steps=4, reference=reference)
    root = f"{reference}-interrupted"
    fit(folder, root, "--config", "fsdp.yaml", steps=2, reference=reference)
    run = fit(
        folder, root, "--config", "fsdp.yaml", "--ckpt_path=last", steps=4, reference=reference, cache="elsewhere"
    )
    assert_same_run(run, whole, atol=1e-5)
    single = f"{reference}-on-one-rank"
    fit(folder, single, "--config", "fsdp.yaml", steps=2, reference=reference)
    run = fit(folder, single, "--ckpt_path=last", steps=4, reference=reference, cache="elsewhere")
    assert_same_run(run, whole, atol=1e-5)
