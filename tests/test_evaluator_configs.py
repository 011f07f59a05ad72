"""Every config of the evaluator builds as it stands, and runs: on its world, or on a small Mistral."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from cli.trainer_cli import main
from studies.plan import read_study
from tests.quick_studies import missing, run_quick
from tests.stand_ins import published
from tests.test_janus_configs import mistral

HERE = Path(__file__).parents[1] / "configs" / "evaluator"
PARTS = ("study.yaml", "start.yaml", "mini_template.yaml", "prometheus_judge.yaml")
RECIPES = sorted(file.name for file in HERE.glob("*.yaml") if file.name not in PARTS and "merge" not in file.name)
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
QUIET = [*CPU, "--trainer.enable_progress_bar=false", "--trainer.default_root_dir=runs"]
SMALL = [f"--data.{{}}.init_args.{name}=40" for name in ("direct", "pairwise", "held_out")]
LEVELS = {f"orig_score{score}_description": f"worth {score}" for score in range(1, 6)}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def small(split):
    return [option.format(split) for option in SMALL]


def metrics(number=0):
    return json.loads(Path(f"runs/version_{number}/metrics.json").read_text())


def written(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def collection(kind):
    """Rows with the columns of the Feedback or the Preference Collection."""

    def row(n):
        asked = {"orig_instruction": f"why {n // 5}", "orig_criteria": "c", "orig_feedback": "f", **LEVELS}
        if kind == "direct":
            verdict = str(1 + n % 5)
            asked |= {"orig_response": f"so {n}", "orig_score": verdict}
        else:
            verdict = "AB"[n % 2]
            asked |= {
                "orig_response_A": "so",
                "orig_response_B": "no",
                "orig_preference": verdict,
                "orig_feedback": "f",
            }
        return asked | {"instruction": f"### judge {n}", "input": "", "output": f"f [RESULT] {verdict}"}

    return written(f"{kind}.jsonl", [row(n) for n in range(200)])


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "meta_eval.yaml"])
def test_every_config_builds_as_it_stands(name):
    built = main(["--config", str(HERE / name), *CPU], run=False)
    assert type(built.model).__name__ == "EvaluatorLM"


def test_the_miniature_trains_judges_and_is_measured():
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.batch_size=16"]
    main(["fit", "--config", str(HERE / "mini.yaml"), *QUIET, *steps, *small("train")])
    assert metrics()["step"] == 2
    run = ["--config", str(HERE / "mini_test.yaml"), *QUIET, *small("test"), "--model.backbone.path=runs/version_0"]
    main(["test", *run])
    assert {"direct/debiased/pearson", "pairwise/in_distribution/acc_mean"} <= metrics(1).keys()
    assert Path("runs/version_1/report.md").is_file()
    merged = [
        "--model.backbone=lm.merging.merged_backbone.MergedBackbone",
        "--model.backbone.init_args.first=runs/version_0",
    ]
    again = ["--data.tokenizer=null", "--model.backbone=TrainedBackbone", "--model.backbone.path=runs/version_0"]
    main(["fit", "--config", str(HERE / "mini.yaml"), *QUIET, *steps, *small("train"), *again])
    run = [option for option in run if "backbone.path" not in option]
    main(["predict", *run, *merged, "--model.backbone.init_args.second=runs/version_2"])
    assert len(Path("runs/version_3/verdicts.jsonl").read_text().splitlines()) == 2 * (40 + 80)


def test_the_recipes_of_the_paper_run_on_a_small_mistral(tmp_path):
    folder = mistral(tmp_path / "mistral")
    once = [*QUIET, "--trainer.max_steps=1", "--model.backbone.gradient_checkpointing=false", "--data.batch_size=4"]
    base = [f"--model.backbone.name_or_path={folder}", "--model.backbone.dtype=float32", "--data.max_length=100"]
    joint = json.dumps([collection("direct"), collection("pairwise")])
    for name, train in (("direct", "direct.jsonl"), ("pairwise", "pairwise.jsonl"), ("joint", joint)):
        config = str(HERE / f"prometheus_7b_{name}.yaml")
        main(["fit", "--config", config, *once, *base, f"--data.train={train}", "--data.val_fraction=0.2"])
    assert [metrics(number)["step"] for number in range(3)] == [1] * 3


def test_the_released_judge_is_measured_on_a_folder_of_the_same_layout(tmp_path):
    """Without the optional package, in our own words."""
    folder = published(tmp_path / "judge", max_position_embeddings=2048)
    where = [f"--model.backbone.name_or_path={folder}", "--model.backbone.dtype=float32"]
    tests = [collection("direct"), collection("pairwise")]
    few = [written(name, map(json.loads, Path(name).read_text().splitlines()[:4])) for name in tests]
    ours = ["--data.template=text.judging.judge_prompts.JudgeTemplate", f"--data.test={json.dumps(few)}"]
    short = ["--model.judging.decoding.max_new_tokens=3", "--model.judging.max_retries=1"]
    main(["test", "--config", str(HERE / "meta_eval.yaml"), *QUIET, *where, *ours, *short])
    found = metrics()
    assert found["direct/n"] == found["pairwise/n"] == 4
    assert found["direct/parse_failure_rate"] > 0
    assert Path("runs/evaluator/verdicts").is_dir()


def test_the_released_judge_is_named_where_a_judge_can_stand():
    assert yaml.safe_load((HERE / "prometheus_judge.yaml").read_text())["class_path"] == "TrainedJudge"


def test_the_study_is_whole():
    study = read_study(HERE / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} <= set(study.arms)


def test_the_study_on_a_real_model_is_whole_and_runs():
    study = read_study(HERE.parent / "evaluator_smollm2" / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)
    assert len(study.seeds) >= 5
    experts, joint = [study.stages[name].set for name in ("direct", "pairwise")], study.stages["joint"].set
    sizes = [f"data.train.init_args.{format}" for format in ("direct", "pairwise")]
    assert [joint[size] for size in sizes] == [max(expert[size] for expert in experts) for size in sizes]
    assert sum(joint[size] for size in sizes) == sum(expert[size] for expert in experts for size in sizes)
    work = run_quick("evaluator_smollm2", {"direct", "pairwise", "joint", "test_base"})
    assert missing(work) == []
