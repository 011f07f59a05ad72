"""Reward models through the door: fit, resume, accumulation, test, scoring, best of N; every config of theirs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from cli.trainer_cli import main
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests.stand_ins import published
from tests.tiny_runs import assert_same

CONFIGS = Path(__file__).parents[1] / "configs"
HERE = CONFIGS / "reward_model"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
QUIET = [*CPU, "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
SMALL = ["--data.train.init_args.pairs=60", "--data.batch_size=8", "--trainer.val_check_interval=3"]
STEPS = 9  # into the second epoch of 7 steps


def run(verb: str, config: str | Path, *options: str) -> Path:
    """One verb in-process; its run folder."""
    cli = main([verb, "--config", str(HERE / config), *QUIET, *options])
    return Path(cli.trainer.log_dir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a supervised and a reward model have been trained, each with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["main.py"])
        patch.setenv("SEEDLING_CACHE", str(folder / "cache"))
        run("fit", CONFIGS / "sft" / "mini.yaml", SMALL[0], SMALL[2], f"--trainer.max_steps={STEPS}")
        run("fit", "mini.yaml", *SMALL, f"--trainer.max_steps={STEPS}")
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(folder / "cache"))


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_a_fit_leaves_its_measures(folder):
    found = metrics(folder / "runs" / "reward_model" / "mini" / "version_0")
    assert found["step"] == STEPS
    assert {f"{split}/rewards/{name}" for split in ("train", "val") for name in ("accuracy", "margin", "std")} <= set(
        found
    )
    assert found["val/loss"] > 0


def test_resumed_fit_equals_an_uninterrupted_one(folder):
    root = "--trainer.default_root_dir=runs/resumed"
    first = run("fit", "mini.yaml", *SMALL, root, "--trainer.max_steps=5")
    again = run("fit", "mini.yaml", *SMALL, root, f"--trainer.max_steps={STEPS}", "--ckpt_path=last")
    assert again == first
    whole = folder / "runs" / "reward_model" / "mini" / "version_0"
    one, other = (open_checkpoint(find_checkpoint(where)) for where in (again, whole))
    assert_same(one["state_dict"], other["state_dict"])
    assert_same(one["optimizer_states"], other["optimizer_states"])
    assert one["language_model"]["reward"] == other["language_model"]["reward"]


def test_accumulated_fit_equals_a_whole_one():
    runs = []
    for number in (1, 2):
        cut = [f"--trainer.accumulate_grad_batches={number}", f"--trainer.val_check_interval={3 * number}"]
        root = f"--trainer.default_root_dir=runs/cut-{number}"
        runs.append(metrics(run("fit", "mini.yaml", *SMALL, root, "--trainer.max_steps=4", *cut)))
    for name in ("train/loss", "train/grad_norm", "train/rewards/margin", "val/loss"):
        assert runs[1][name] == pytest.approx(runs[0][name], rel=1e-3)


def test_a_test_measures_the_checkpoint(folder):
    checkpoint = folder / "runs" / "reward_model" / "mini" / "version_0" / "checkpoints" / "last.ckpt"
    found = metrics(run("test", "mini.yaml", *SMALL[:2], f"--ckpt_path={checkpoint}"))
    assert 0 <= found["test/rewards/accuracy"] <= 1


def test_recorded_answers_are_scored_as_the_pairs_they_came_from(folder):
    """The same answers as pairs of a test and as lines with a response give the same rewards."""
    Path("pairs.jsonl").write_text(
        json.dumps({"prompt": "Bring me tea.", "chosen": "Gladly.", "rejected": "Ugh."}) + "\n"
    )
    texts = ["Gladly.", "", "Ugh."]
    records = [{"prompt": "Bring me tea.", "response": text, "draw": d, "topic": "tea"} for d, text in enumerate(texts)]
    Path("responses.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    scored = lines(
        run("predict", "score.yaml", "--data.prompts=responses.jsonl", "--model.normalize=false") / "rewards.jsonl"
    )
    assert [(line["response"], line["draw"], line["topic"]) for line in scored] == [
        (t, d, "tea") for d, t in enumerate(texts)
    ]
    chosen, empty, rejected = (line["reward"] for line in scored)
    assert empty is None
    reward = "--model.backbone.path=runs/reward_model/mini/version_0"
    backbone = ["--model.backbone=TrainedBackbone", reward, "--data.tokenizer=null"]
    found = metrics(run("test", "mini.yaml", *backbone, "--data.train=pairs.jsonl", "--data.test=pairs.jsonl"))
    assert found["test/rewards/chosen"] == pytest.approx(chosen, abs=1e-5)
    assert found["test/rewards/rejected"] == pytest.approx(rejected, abs=1e-5)


def test_rewards_are_normalised_by_what_the_run_measured(folder):
    plain, scaled = (
        [line["reward"] for line in lines(run("predict", "score.yaml", f"--model.normalize={flag}") / "rewards.jsonl")]
        for flag in ("false", "true")
    )
    found = metrics(folder / "runs" / "reward_model" / "mini" / "version_0")
    mean, std = found["val/rewards/mean"], found["val/rewards/std"]
    assert scaled == pytest.approx([(reward - mean) / std for reward in plain], abs=1e-3)


def test_the_best_of_n_is_written_with_what_n_is_worth():
    short = ["--model.n=4", "--model.decoding.max_new_tokens=6", "--data.limit=5"]
    found = run("predict", "best_of_n.yaml", *short)
    kept = lines(found / "responses.jsonl")
    assert len(kept) == 5
    for line in kept:
        known = [reward for reward in line["rewards"] if reward is not None]
        assert len(line["rewards"]) == 4
        assert line["reward"] == (max(known) if known else None)
        assert line["draw"] == line["rewards"].index(line["reward"])
    curve = metrics(found)
    assert curve["best_of_n/reward@1"] <= curve["best_of_n/reward@2"] <= curve["best_of_n/reward@4"]
    everything = [max(r for r in line["rewards"] if r is not None) for line in kept]
    assert curve["best_of_n/reward@4"] == pytest.approx(sum(everything) / 5, abs=1e-6)
    plain = lines(run("predict", "best_of_n.yaml", *short, "--model.engine=plain") / "responses.jsonl")
    assert [line["response"] for line in plain] == [line["response"] for line in kept]
    scored = lines(
        run("predict", "score.yaml", f"--data.prompts={found / 'responses.jsonl'}", "--model.normalize=false")
        / "rewards.jsonl"
    )
    assert [line["reward"] for line in scored] == pytest.approx([line["reward"] for line in kept], abs=1e-5)


def test_one_greedy_answer_is_not_the_best_of_many(capsys):
    with pytest.raises(SystemExit):
        run("predict", "best_of_n.yaml", "--model.decoding.temperature=0")
    assert "at temperature 0 all answers to a prompt are the same" in capsys.readouterr().err


# ---- every config


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.yaml") if path.stem != "start"))
def test_every_config_builds_as_it_stands(name):
    built = main(["--config", str(HERE / name), *CPU], run=False)
    assert type(built.model).__name__ == ("BestOfN" if name == "best_of_n.yaml" else "RewardModel")


def test_the_paper_scale_runs_on_a_small_run_and_a_small_file(folder):
    """Two substitutions: the supervised run, and dialogues of the same form; all else is the config's."""
    dialogues = [
        {
            side: f"\n\nHuman: the cat {i}\n\nAssistant: {said} mat {i}"
            for side, said in (("chosen", "on"), ("rejected", "no"))
        }
        for i in range(16)
    ]
    Path("hh.jsonl").write_text("".join(json.dumps(dialogue) + "\n" for dialogue in dialogues))
    data = ["--data.train=hh.jsonl", "--data.val=hh.jsonl", "--data.batch_size=8"]
    small = ["--model.backbone.path=runs/sft/mini/version_0", "--trainer.max_steps=2", "--trainer.val_check_interval=8"]
    found = run("fit", "mistral_7b.yaml", *data, *small)
    assert metrics(found)["step"] == 2
    assert metrics(found)["val/rewards/std"] > 0
    assert yaml.safe_load((found / "config.yaml").read_text())["model"]["class_path"] == "modules.RewardModel"


def test_a_published_model_with_adapters_by_options_alone(folder, tmp_path):
    base = published(tmp_path / "base", dtype="bfloat16", max_position_embeddings=512)
    backbone = ["--model.backbone=PretrainedBackbone", f"--model.backbone.name_or_path={base}", "--data.tokenizer=null"]
    lora = ["--model.backbone.dtype=bfloat16", "--model.backbone.lora.r=2", "--model.backbone.quantization.bits=4"]
    found = run(
        "fit", "mini.yaml", *SMALL, *backbone, *lora, "--trainer.max_steps=2", "--trainer.default_root_dir=runs/lora"
    )
    state = open_checkpoint(find_checkpoint(found))["state_dict"]
    heads = [name for name in state if ".lora_" not in name]
    assert sorted(heads) == ["model.base_model.model.score.modules_to_save.default.weight", "reward_mean", "reward_std"]
    assert state[heads[0]].dtype == torch.float32


def test_mistakes_are_told_in_one_line(capsys):
    bad = ["--trainer.max_steps=1", "--trainer.default_root_dir=runs/bad"]
    for verb, options, message in (
        ("fit", ["--data.append_eos=chosen", *bad], "at the token that ends it: set data.append_eos to both"),
        ("test", [], "the head of this reward model is random: give its checkpoint"),
    ):
        with pytest.raises(SystemExit):
            run(verb, "mini.yaml", *SMALL[:2], *options)
        assert message in capsys.readouterr().err
