"""Every config of SELF-JUDGE and GRPO builds as it stands, and runs: the whole chain on its world, in few steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from tests.stand_ins import published

CONFIGS = Path(__file__).parents[1] / "configs"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
QUIET = [*CPU, "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
LARGE = ["jsft_hh_7b", "jsft_uf_7b", "jsft_uf_principles_7b"]


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run(verb, name, *options):
    built = main(
        [verb, "--config", str(CONFIGS / f"{name}.yaml"), *CPU, "--trainer.enable_progress_bar=false", *options]
    )
    return built, json.loads((Path("runs") / name / "version_0/metrics.json").read_text())


def steps(number):
    return [f"--trainer.max_steps={number}", f"--trainer.val_check_interval={number}", "--trainer.log_every_n_steps=1"]


@pytest.mark.oracle("Alternating")
def test_the_whole_chain_runs_on_its_world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world = ["--data.train.init_args.pairs=60", "--data.train.init_args.judged=8"]
    _, jsft = run("fit", "self_judge/jsft", *steps(3), *world, "--data.batch_size=24")
    assert {"val/judge/accuracy", "val/loss_judge", "val/loss_sft"} <= set(jsft)
    _, judge = run("test", "self_judge/judge", "--data.test.init_args.judged=8")
    names = {"accuracy", "consistency", "position_bias", "ece", "low_mass"}
    assert {f"judge/{name}" for name in names} <= set(judge)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Q s1 s2", "chosen": "s1 s2 s1", "rejected": "s3"}\n')
    built = main(["test", "--config", str(CONFIGS / "self_judge/judge.yaml"), *QUIET, f"--data.init_args.test={pairs}"])
    assert built.model.results["judge/n"] == 1
    _, learnt = run("fit", "self_judge/self_judge", *steps(2), *world, "--data.batch_size=4")
    assert learnt["train/rollout/skipped"] < 1
    assert learnt["val/judge/n"] == 8
    _, chosen = run("predict", "self_judge/self_rejection", "--data.prompts.init_args.held_out=3")
    assert chosen["self_rejection/prompts"] == 3
    assert 0 <= chosen["self_rejection/score"] <= 8
    lines = Path("runs/self_judge/self_rejection/version_0/responses.jsonl").read_text().splitlines()
    assert len(lines) == 3
    told = [json.loads(line) for line in lines]
    assert sum(len(one["matches"]) for one in told) == chosen["self_rejection/matches"]
    _, offline = run("fit", "self_judge/dpo", *steps(2), *world, "--data.batch_size=8")
    assert offline["step"] == 2
    own = ["--data.train=runs/self_judge/self_rejection/version_0/responses.jsonl", "--data.on_identical=drop"]
    own += ["--data.field_map={chosen: response, rejected: runner_up}", "--trainer.max_steps=1"]  # off-policy
    given = ["fit", "--config", str(CONFIGS / "self_judge/dpo.yaml"), *QUIET, *own, "--data.batch_size=2"]
    assert main([*given, f"--data.val={CONFIGS}/self_judge/alternating/world.yaml"]).trainer.global_step == 1
    _, alone = run("fit", "self_judge/sft", *steps(2), *world)
    assert alone["val/loss"] > 0
    _, rewarded = run("fit", "grpo/mini", *steps(2), "--data.batch_size=4", "--model.num_samples=2")
    assert 0 <= rewarded["val/reward"] <= 8


def test_a_reward_model_judges_and_a_checker_rewards(tmp_path, monkeypatch):
    """online_dpo.yaml and chain.yaml, after few steps of the runs that they go on from."""
    monkeypatch.chdir(tmp_path)
    few = ["--data.train.init_args.pairs=40"]
    run("fit", "sft/mini", *steps(2), *few)
    run("fit", "reward_model/mini", *steps(2), *few)
    _, learnt = run("fit", "self_judge/online_dpo", *steps(2), *few, "--data.batch_size=4")
    assert learnt["train/judge/unread"] == 0
    assert learnt["step"] == 2
    chain = ["--data.train.init_args.train=40", "--data.train.init_args.answer_only=2"]
    run(
        "fit",
        "self_explore/sft",
        "--trainer.max_steps=2",
        *chain,
        "--data.batch_size=8",
        "--trainer.limit_val_batches=0",
    )
    few = ["--data.batch_size=2", "--model.num_samples=2", "--trainer.limit_val_batches=1"]
    _, rewarded = run("fit", "grpo/chain", *steps(1), *chain, *few)
    assert rewarded["train/rollout/reward"] >= 0


@pytest.mark.parametrize("name", [*(f"self_judge/{name}" for name in (*LARGE, "smollm2")), "grpo/gsm8k_7b"])
def test_configs_of_real_models_build_as_they_stand(name):
    light = ["--model.backbone.name_or_path=builtin:untrained"] if "smollm2" in name else []
    built = main(["--config", str(CONFIGS / f"{name}.yaml"), *CPU, *light], run=False)
    assert type(built.model).__name__ == ("GRPO" if name.startswith("grpo") else "JSFT")


def test_official_words_have_labels_of_one_token_and_real_configs_run(tmp_path, monkeypatch):
    """hh-rlhf in its own form, through JSFT with adapters and then SELF-JUDGE on the run, two steps each."""
    monkeypatch.chdir(tmp_path)
    published(tmp_path / "base", max_position_embeddings=512)
    words = "\n\nHuman: the cat?\n\nAssistant: {}\n\nHuman: and the dog?\n\nAssistant: {}"
    lines = [{"chosen": words.format("sat", f"on {n}"), "rejected": words.format("sat", f"no {n}")} for n in range(8)]
    file = tmp_path / "hh.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sources = [f"--data.{split}={file}" for split in ("train", "val")]
    small = [*sources, "--trainer.accumulate_grad_batches=1", "--trainer.max_steps=1", "--data.max_length=480"]
    words = ["--data.template.init_args.labels=[a, b]", "--data.template.init_args.opening=x"]
    model = ["--model.backbone.name_or_path=base", "--model.backbone.dtype=float32"]
    given = ["--data.batch_size=8", f"--data.imitate={file}", "--trainer.val_check_interval=1"]
    _, found = run("fit", "self_judge/jsft_hh_7b", *small, *given, *model, *words)
    assert found["val/judge/n"] == 8
    further = ["--data.batch_size=4", "--data.max_prompt_length=400", "--model.decoding.max_new_tokens=4"]
    run_ = ["--model.backbone.dtype=float32", "--trainer.val_check_interval=1"]
    _, learnt = run("fit", "self_judge/self_judge_7b", *small, *further, *run_, *words)
    assert learnt["val/judge/n"] == 8
    assert learnt["step"] == 1
