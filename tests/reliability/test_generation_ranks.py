"""Answers of one process and of several, whole or sharded: the same file, byte for byte."""

from __future__ import annotations

import json

import pytest
import yaml

from tests import warm_runs
from tests.stand_ins import published
from tests.warm_runs import ROOT, ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generation")
    published(folder / "model", initializer_range=0.3)  # logits far apart: rounding never decides
    prompts = [
        {"prompt": "the cat " * (1 + number % 4) + "sat" * (number % 3), "number": number} for number in range(11)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    sharded = {"class_path": "lm.steps.strategies.FullySharded", "init_args": {"process_group_backend": "gloo"}}
    (folder / "fsdp.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 2, "strategy": sharded}}))
    return folder


def run(folder, root, *arguments):
    options = [
        "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={folder / root}",
        f"--model.init_args.backbone.name_or_path={folder / 'model'}",
        f"--data.init_args.prompts={folder / 'prompts.jsonl'}",
        "--data.init_args.batch_size=3",
        "--model.init_args.samples=2",
        "--model.init_args.decoding.temperature=1.0",
        "--model.init_args.decoding.max_new_tokens=12",
        '--model.init_args.decoding.stop=["e"]',
        "--model.init_args.max_batch_tokens=120",
    ]
    call = ["main.py", "predict", "--config", str(ROOT / "configs" / "generate.yaml"), *options, *arguments]
    return warm_runs.start(call, folder, ranks(arguments))


def responses(folder, root, *arguments) -> bytes:
    done = run(folder, root, *arguments)
    assert done.wait() == 0, done.said[-8000:]
    return (folder / root / "version_0" / "responses.jsonl").read_bytes()


@pytest.fixture(scope="module")
def alone(folder):
    return responses(folder, "alone")


def test_two_ranks_write_the_file_of_one(folder, alone):
    lines = [json.loads(line) for line in alone.splitlines()]
    assert [(line["number"], line["draw"]) for line in lines] == [(n, draw) for n in range(11) for draw in range(2)]
    assert len({line["response"] for line in lines}) > 11
    assert responses(folder, "ddp", "--trainer.devices=2", "--trainer.strategy=ddp") == alone


def test_a_sharded_model_writes_it_too(folder, alone):
    """Ranks have prompts of other lengths, so other numbers of batches and of steps."""
    assert responses(folder, "sharded", "--config", str(folder / "fsdp.yaml")) == alone


def test_a_sharded_model_with_adapters_is_refused(folder):
    lora = "--model.init_args.backbone.lora.r=2"
    done = run(folder, "lora", "--config", str(folder / "fsdp.yaml"), lora)
    assert done.wait() != 0
    assert "a sharded model with adapters cannot generate: use --trainer.strategy ddp" in done.said
