"""Every config of janus builds as it stands, and runs: on its world, or on a small Mistral and files of its schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from cli.trainer_cli import main
from studies.plan import read_study
from tests.quick_studies import missing, run_quick
from tests.stand_ins import tiny_tokenizer

CONFIGS = Path(__file__).parents[1] / "configs"
HERE = CONFIGS / "janus"
RECIPES = sorted(file.name for file in HERE.glob("*.yaml") if file.name not in ("study.yaml", "mini_judge.yaml"))
PAPER = [name for name in RECIPES if "mini" not in name and name != "start.yaml"]  # tests/test_start_configs.py
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
QUIET = [*CPU, "--trainer.enable_progress_bar=false", "--trainer.default_root_dir=runs"]
STEPS = ["--trainer.max_steps=2", "--trainer.val_check_interval=2"]
TINY = ["--model.backbone.dtype=float32", "--model.backbone.gradient_checkpointing=false"]
SMALL_WORLD = ["--data.train.init_args.instructions=60", "--data.train.init_args.test_records=30"]
FIVE = {str(score): f"worth {score}" for score in range(1, 6)}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def mistral(folder: Path) -> str:
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = MistralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=128, **sizes, **ids
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def written(name: str, records: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return name


def answers() -> str:
    values = [{"dimension": "Style", "subdimension": "Clarity", "preference": "brief", "description": "Be brief."}]
    return written(
        "sft.jsonl",
        [
            {
                "main_source": "m",
                "original_source": "o",
                "preference_set": values,
                "system": f"s{v}",
                "prompt": f"why {i}",
                "output": f"so {v}",
            }
            for i in range(200)
            for v in range(3)
        ],
    )


def pairs(kind: str) -> str:
    """The columns that each data set is published with, as far as is known."""

    def one(i: int) -> dict:
        if kind == "orpo":
            said = [{"role": "system", "content": "s"}, {"role": "user", "content": f"why {i}"}]
            return {side: [*said, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
        asked = {"input": f"why {i}"} if kind == "rm" else {"system": "s", "instruction": f"why {i}"}
        return asked | {"chosen": "so", "rejected": "no"}

    return written(f"{kind}.jsonl", [one(i) for i in range(300)])


def metrics(number: int = 0) -> dict:
    return json.loads(Path(f"runs/version_{number}/metrics.json").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_every_config_builds_as_it_stands(name):
    built = main(["--config", str(HERE / name), *CPU], run=False)
    kinds = {"dpo": "DPO", "orpo": "DPO", "kto": "KTO", "rm": "RewardModel", "sft": "SFT", "bench": "MultifacetedBench"}
    wanted = next((kind for part, kind in kinds.items() if part in name.replace("orpo", "o_dpo")), None)
    expected = {
        "mini.yaml": "SFT",
        "start.yaml": "SFT",
        "bench.yaml": "Generation",
        "mini_verdicts.yaml": "RecordedBench",
    }.get(name, wanted)
    assert type(built.model).__name__ == expected


@pytest.mark.parametrize("name", ["mini.yaml", "mini_dpo.yaml", "mini_kto.yaml", "mini_orpo.yaml", "mini_rm.yaml"])
def test_the_miniatures_train_on_their_world(name):
    main(["fit", "--config", str(HERE / name), *QUIET, *STEPS, *SMALL_WORLD, "--data.batch_size=16"])
    assert metrics()["step"] == 2
    if name == "mini.yaml":
        assert abs(metrics()["probe/system_gain"]) < 0.2


def test_the_miniature_is_judged_and_compared(tmp_path):
    main(["fit", "--config", str(HERE / "mini.yaml"), *QUIET, *STEPS, *SMALL_WORLD])
    tested = ["--data.prompts.init_args.instructions=60", "--data.prompts.init_args.test_records=12"]
    trained = ["--model.backbone=TrainedBackbone", "--model.backbone.path=runs/version_0", "--data.tokenizer=null"]
    bench = ["test", "--config", str(HERE / "mini_bench.yaml"), *QUIET, *tested]
    main([*bench, *trained, "--model.samples=2", "--model.decoding.temperature=1.0"])
    found = metrics(1)
    assert {"bench/score/unseen_value", "bench/score/no_system", "bench/sensitivity", "bench/best_of/2"} <= found.keys()
    assert found["bench/valid"] is True
    main([*bench])
    recorded = [f"runs/version_{number}/bench/instances.jsonl" for number in (1, 2)]
    verdicts = ["test", "--config", str(HERE / "mini_verdicts.yaml"), *QUIET, *tested]
    main([*verdicts, f"--data.responses={recorded[0]}", f"--model.judging.baseline_responses={recorded[1]}"])
    again = metrics(3)
    assert again["bench/score"] == found["bench/score"]
    assert 0 <= again["bench/win_rate"] <= again["bench/tie_win_rate"] <= again["bench/tie_win_rate_all"] <= 1
    assert (tmp_path / "runs/version_3/bench/report.md").is_file()


def test_the_recipes_of_the_paper_run_one_after_the_other(tmp_path):
    folder = mistral(tmp_path / "mistral")
    once = [*QUIET, "--trainer.max_steps=1", "--trainer.accumulate_grad_batches=1", *TINY]
    base = f"--model.backbone.name_or_path={folder}"
    for name in ("sft_7b.yaml", "sft_epoch1_7b.yaml", "sft_65k_7b.yaml"):
        main(["fit", "--config", str(HERE / name), *once, base, f"--data.train={answers()}", "--data.max_length=100"])
    start = "--model.backbone.path=runs/version_2"
    chain = {"dpo_7b.yaml": ("dpo", start), "orpo_7b.yaml": ("orpo", base), "kto_7b.yaml": ("dpo", start)}
    for name, (kind, backbone) in chain.items():
        main(
            [
                "fit",
                "--config",
                str(HERE / name),
                *once,
                backbone,
                f"--data.train={pairs(kind)}",
                "--data.max_length=100",
            ]
        )
    stages = {"rm_7b.yaml": "runs/version_1", "rm_helpful_7b.yaml": "runs/version_6"}
    for name, run in stages.items():
        data = [f"--data.train={pairs('rm')}", f"--data.val={pairs('rm')}", "--data.max_length=100"]
        main(["fit", "--config", str(HERE / name), *once, f"--model.backbone.path={run}", *data])
    assert [metrics(number)["step"] for number in range(8)] == [1] * 8


def test_answers_to_the_bench_are_recorded(tmp_path):
    rubric = [{"criteria": "Is it kind?", "score_descriptions": FIVE}]
    asked = [
        {"source": "koala", "system": "s", "prompt": f"why {n}", "reference_answer": "a", "rubric": rubric}
        for n in range(3)
    ]
    small = [f"--data.prompts={written('bench.jsonl', asked)}", "--model.decoding.max_new_tokens=4"]
    model = [f"--model.backbone.name_or_path={mistral(tmp_path / 'mistral')}", "--model.backbone.dtype=float32"]
    main(["predict", "--config", str(HERE / "bench.yaml"), *QUIET, *small, *model])
    lines = [json.loads(line) for line in Path("runs/version_0/responses.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["why 0", "why 1", "why 2"]
    assert lines[0]["rubric"][0]["criteria"] == "Is it kind?"


def test_the_bracket_form_is_what_the_paper_asks_in():
    built = main(["--config", str(HERE / "sft_7b.yaml"), *CPU], run=False)
    renderer = built.datamodule.chat.renderer(tiny_tokenizer())
    assert renderer.prompt_text("Why?", "Be brief.") == "[INST] Be brief.\nWhy? [/INST]"
    assert renderer.prompt_text("Why?") == "[INST] Why? [/INST]"
    assert renderer.placement == "merge_user"


def test_the_study_is_whole():
    study = read_study(HERE / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)


def test_the_study_on_a_real_model_is_whole():
    study = read_study(CONFIGS / "janus_smollm2" / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)
    text = Path("data/wikitext2/test.txt")
    text.parent.mkdir(parents=True)
    text.write_text("some plain text\nand more of it\n")
    assert missing(run_quick("janus_smollm2", {"tune", "bench_base"})) == []
