"""Self-Explore as the paper has it: every stage builds as it stands, and runs on a small model and records of GSM8K."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cli.trainer_cli import main
from lm.generation.decoding import Decoding
from tests.stand_ins import tiny_tokenizer
from text.reasoning.answers import MathChecker
from text.reasoning.reasoning_records import ExplorationRecord, MinedPair, SampleRecord
from text.reasoning.steps import MathSteps

ALL = Path(__file__).parents[1] / "configs" / "self_explore"
HERE, MATH = ALL / "gsm8k_7b", ALL / "math_7b"
PRESENTED = sorted((folder.name, file.stem) for folder in (HERE, MATH) for file in folder.glob("*.yaml"))
STAGES = {"sft": "SFT", "rft": "SFT", "sample": "Sampler", "test": "Sampler", "explore": "Explorer"}
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
ONCE = ["--trainer.max_steps=1", "--data.batch_size=4"]
SHORT = ["--model.decoding.max_new_tokens=8"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def build(stage: str, folder: Path = HERE, *more: str):
    parts = [option for part in more for option in ("--config", str(ALL / "parts_7b" / f"{part}.yaml"))]
    return main(["--config", str(folder / f"{stage}.yaml"), *parts, *CPU], run=False)


def run(verb: str, stage: str, *options: str) -> Path:
    main([verb, "--config", str(HERE / f"{stage}.yaml"), *CPU, "--trainer.enable_progress_bar=false", *options])
    return max(Path("runs/self_explore/gsm8k_7b", stage).glob("version_*"))


def records(path: Path, kind) -> list:
    return [kind.model_validate_json(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("folder", "stage"), PRESENTED)
def test_every_stage_builds_as_it_stands(folder, stage):
    built = build(stage, ALL / folder)
    assert type(built.model).__name__ == STAGES.get(stage, "DPO")
    assert folder in built.trainer.default_root_dir
    assert folder in getattr(built.model.backbone, "path", folder)  # preferences begin with the model of their own rft
    assert f"/{'gsm8k' if folder == 'math_7b' else 'math'}_7b/" not in (ALL / folder / f"{stage}.yaml").read_text()


@pytest.mark.parametrize("folder", [HERE, MATH])
@pytest.mark.parametrize(
    ("name", "parts", "rate"),
    [
        ("EleutherAI/llemma_7b", ["llemma"], 1e-5),
        ("mistralai/Mistral-7B-v0.1", ["mistral", "mistral_supervised"], 1e-6),
    ],
)
def test_other_models_are_one_overlay_more(folder, name, parts, rate):
    for stage in ("sft", "rft"):
        model = build(stage, folder, *parts).model
        assert model.backbone.name_or_path == name
        assert model.optimizer([torch.zeros(1, requires_grad=True)]).defaults["lr"] == rate
    for stage in ("sample", "explore", "test"):
        assert build(stage, folder, parts[0]).model.backbone.name_or_path == name
    for stage in ("dpo", "outcome_dpo"):
        slow, fast = build(stage, folder, "mistral_preference").model, build(stage, folder).model
        assert slow.optimizer([torch.zeros(1, requires_grad=True)]).defaults["lr"] == 1e-7
        assert fast.optimizer([torch.zeros(1, requires_grad=True)]).defaults["lr"] == 1e-6


def test_the_numbers_are_those_of_the_paper():
    sampler, explorer, dpo, sft = (build(stage) for stage in ("sample", "explore", "dpo", "sft"))
    assert (sampler.model.num_samples, explorer.model.k, explorer.model.max_steps) == (100, 4, 20)
    assert sampler.model.decoding == explorer.model.decoding == Decoding(max_new_tokens=512, temperature=0.7)
    assert (sft.datamodule.batch_size, sft.trainer.max_epochs) == (64, 5)
    assert (dpo.datamodule.batch_size, dpo.trainer.max_epochs, dpo.model.options["beta"]) == (32, 3, 0.1)
    assert dpo.datamodule.append_eos == "chosen"
    assert dpo.datamodule.limits.max_length == 384


def test_the_numbers_for_math_are_those_of_the_paper():
    sampler, explorer, dpo, sft = (build(stage, MATH) for stage in ("sample", "explore", "dpo", "sft"))
    assert (sampler.model.num_samples, explorer.model.k, explorer.model.max_steps) == (100, 4, 20)
    assert sampler.model.decoding == explorer.model.decoding == Decoding(max_new_tokens=1024, temperature=0.7)
    assert (sampler.model.mining.dedup, sampler.model.mining.rule) == ("edit", "shortest_dissimilar")
    assert isinstance(explorer.model.steps, MathSteps)
    assert all(isinstance(one.datamodule.checker, MathChecker) for one in (sampler, explorer, sft))
    assert len(sft.datamodule.sources["train"]) == 7
    limits = dpo.datamodule.limits
    assert (limits.max_length, limits.max_prompt_length) == (1024, 512)
    assert (sft.datamodule.batch_size, sft.trainer.max_epochs, dpo.datamodule.batch_size) == (64, 5, 32)


def test_the_stages_run_on_each_other(tmp_path):
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    small = [f"--model.backbone.name_or_path={tmp_path / 'llama'}", "--model.backbone.gradient_checkpointing=false"]
    asked = [{"question": f"{n} and 1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"} for n in range(8)]
    Path("gsm8k.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    questions = "--data.train=gsm8k.jsonl"
    fitted = run("fit", "sft", *small, *ONCE, questions)
    weights = f"--ckpt_path={min(fitted.glob('checkpoints/*.ckpt')).resolve()}"
    sampled = run("predict", "sample", *small, *SHORT, questions, weights, "--model.num_samples=2")
    assert [len(record.samples) for record in records(sampled / "samples.jsonl", SampleRecord)] == [2] * 8
    wrong = [
        {"id": f"{n}", "question_id": f"{n}", "prompt": f"{n} and 1?\n", "gold": f"{n + 1}"}
        | {"chosen": f"The answer is {n + 1}", "rejected": f"So:\n{n}\nThe answer is 0"}
        for n in range(4)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in wrong))
    explored = run("predict", "explore", *small, *SHORT, questions, weights, "--data.pairs=pairs.jsonl")
    assert {record.pit for record in records(explored / "explorations.jsonl", ExplorationRecord)} == {1}
    pairs = records(explored / "gpairs.jsonl", MinedPair)
    assert [pair.rejected for pair in pairs] == ["So:"] * 4
    assert all(pair.prompt_tokens and pair.rejected_tokens for pair in pairs)
    run("fit", "rft", *small, *ONCE, questions)
    base = [
        "--model.backbone.path=runs/self_explore/gsm8k_7b/rft/version_0",
        "--model.backbone.gradient_checkpointing=false",
    ]
    for stage in ("dpo", "outcome_dpo"):
        done = run("fit", stage, *base, *ONCE, f"--data.train={explored / 'gpairs.jsonl'}")
        assert json.loads((done / "metrics.json").read_text())["step"] == 1
    of_dpo = ["--model.backbone=TrainedBackbone", f"--model.backbone.path={done}"]
    for model in ([*small, weights], of_dpo):
        tested = run("test", "test", *model, *SHORT, questions, "--data.test=gsm8k.jsonl")
        assert json.loads((tested / "metrics.json").read_text())["test/accuracy"] == 0
