"""Every config of BiGGen Bench builds as it stands, and runs: on its world, or on files of the official schemas."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from studies.plan import read_study
from tests.quick_studies import missing, run_quick
from tests.stand_ins import published
from worlds import RubricWorld

KEPT = ["--model.kept_verdicts=log"]
HERE = Path(__file__).parents[1] / "configs" / "biggen_bench"
RECIPES = sorted(file.name for file in HERE.glob("*.yaml") if "study" not in file.name)
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
QUIET = [*CPU, "--trainer.enable_progress_bar=false", "--trainer.default_root_dir=runs"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def metrics(number: int = 0) -> dict:
    return json.loads(Path(f"runs/version_{number}/metrics.json").read_text())


def written(name: str, records: list[dict]) -> str:
    """As the official files are: keyed by id."""
    Path(name).write_text(json.dumps({record["id"]: record for record in records}, indent=1))
    return name


def official(capability: str, n: int) -> dict:
    descriptions = {f"score{score}_description": f"worth {score}" for score in range(1, 6)}
    given = {"id": f"{capability}_t_{n}", "capability": capability, "task": "t", "instance_idx": n}
    asked = {"system_prompt": "Be brief.", "input": f"why {n}?", "reference_answer": "so"}
    return given | asked | {"score_rubric": {"criteria": "Is it brief?", **descriptions}}


INSTANCES = [official(capability, n) for capability in ("planning", "safety") for n in range(3)]


PROMPTS = """
ABS_SYSTEM_PROMPT = REL_SYSTEM_PROMPT = "You judge."
SCORE_RUBRIC_TEMPLATE = "[{criteria}] {score1_description} {score5_description}"
def get_prompt_template(grading_format, include_reference):
    shown = " {reference_answer}" if include_reference else ""
    return ("{instruction} {response} {rubric}" + shown) if grading_format == "absolute" else "{instruction}" + shown
"""


@pytest.fixture
def prometheus_words(tmp_path, monkeypatch):
    """Stands in for the optional package prometheus-eval."""
    package = tmp_path / "site" / "prometheus_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs what should not be installed')")
    (package / "prompts.py").write_text(PROMPTS)
    monkeypatch.syspath_prepend(str(package.parent))


@pytest.mark.parametrize("name", RECIPES)
def test_every_config_builds_as_it_stands(name, prometheus_words):
    built = main(["--config", str(HERE / name), *CPU], run=False)
    kinds = {"mini": "BiggenBench", "smollm2": "BiggenBench", "recorded": "RecordedBiggen", "mini_evaluator": "SFT"}
    kinds |= dict.fromkeys(("meta_eval", "mini_agreement"), "JudgeAgreement")
    expected = kinds.get(Path(name).stem, "RecordedBiggen" if name.startswith("judge_") else "Generation")
    assert type(built.model).__name__ == expected


def test_recorded_scores_are_summed_up():
    """The acceptance of the bench: worked means, from official files, without a model."""
    scores = [
        {"id": "planning_t_0", "score": 5},
        {"id": "planning_t_1", "score": 3},
        {"id": "planning_t_2", "score": None},
    ]
    scores.append({"id": "safety_t_0", "score": 2})
    data = [
        f"--data.init_args.instances={written('i.json', INSTANCES[:4])}",
        f"--data.init_args.scores={written('s.json', scores)}",
    ]
    main(["test", "--config", str(HERE / "recorded.yaml"), *QUIET, *data])
    found = metrics()
    assert (found["biggen/planning"], found["biggen/safety"], found["biggen/overall_macro"]) == (4.0, 2.0, 3.0)
    assert found["biggen/overall_micro"] == pytest.approx(10 / 3)
    assert (found["biggen/coverage"], found["biggen/parse_failure_rate"]) == (0.75, 0.25)
    main(["test", "--config", str(HERE / "recorded.yaml"), *QUIET, *data, "--model.init_args.grading.impute=1"])
    assert metrics(1)["biggen/overall_micro"] == 2.75


def test_the_miniature_answers_and_is_judged():
    small = ["--data.instances.init_args.instances=2"]
    main(["predict", "--config", str(HERE / "mini.yaml"), *QUIET, *small])
    lines = [json.loads(line) for line in Path("runs/version_0/responses.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [record["id"] for record in RubricWorld(instances=2).records("test")]
    main(["test", "--config", str(HERE / "mini.yaml"), *QUIET, *small])
    assert metrics(1)["biggen/coverage"] == 1.0
    report = Path("runs/version_1/bench/report.md").read_text()
    assert "| c2/t3 | 2 |" in report
    recorded = [
        "--data.init_args.instances.init_args.instances=2",
        "--data.init_args.scores=runs/version_1/bench/instances.jsonl",
    ]
    main(["test", "--config", str(HERE / "recorded.yaml"), *QUIET, *recorded])
    assert metrics(2)["biggen/overall_macro"] == metrics(1)["biggen/overall_macro"]


def test_evaluators_are_compared_with_the_human():
    main(["test", "--config", str(HERE / "meta_eval.yaml"), *QUIET, "--data.init_args.results.init_args.instances=4"])
    found = metrics()
    assert found["agreement/program/pooled/pearson"] == found["agreement/gold/pooled/pearson"] > 0.8
    assert sorted(path.name for path in Path("runs/version_0/agreement").iterdir()) == [
        "agreement.png",
        "answers.jsonl",
        "report.md",
    ]


@pytest.mark.parametrize("name", ["chat_7b.yaml", "base_7b_urial.yaml"])
def test_models_answer_the_official_schema(name, tmp_path):
    folder = published(tmp_path / "model", max_position_embeddings=2048)
    small = [
        f"--data.instances={written('i.json', INSTANCES)}",
        "--model.decoding.max_new_tokens=4",
        "--model.kept_answers=log",
    ]
    model = [f"--model.backbone.name_or_path={folder}", "--model.backbone.dtype=float32"]
    main(["predict", "--config", str(HERE / name), *QUIET, *small, *model])
    lines = [json.loads(line) for line in Path("runs/version_0/responses.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [one["id"] for one in INSTANCES]
    assert len([*Path("log").iterdir()]) == 1
    main(["predict", "--config", str(HERE / name), *QUIET, *small, *model])  # from the log
    assert Path("runs/version_1/responses.jsonl").read_text() == Path("runs/version_0/responses.jsonl").read_text()


def test_a_small_model_answers_and_judges_itself():
    """On models that know nothing, with the tokens of their own folder; the real one is in docs/biggen_bench.md."""
    judge = "--model.judges.itself.init_args.backbone.init_args.name_or_path=builtin:untrained"
    small = ["--data.subset=stratified:2", "--model.decoding.max_new_tokens=4", judge]
    model = ["--model.backbone.name_or_path=builtin:untrained", f"--data.instances={written('i.json', INSTANCES)}"]
    main(["test", "--config", str(HERE / "smollm2.yaml"), *QUIET, *model, *small])
    assert metrics()["biggen/coverage"] == 1.0
    assert 1 <= metrics()["biggen/overall_macro"] <= 5


def test_answers_on_record_are_judged_by_prometheus(tmp_path, prometheus_words):
    folder = published(tmp_path / "model", max_position_embeddings=2048)
    answers = written("r.json", [{"id": one["id"], "response": "so"} for one in INSTANCES])
    backbone = "--model.judges.prometheus_7b.init_args.backbone.init_args"
    judge = [f"{backbone}.name_or_path={folder}", f"{backbone}.dtype=float32"]
    judge.append("--model.judges.prometheus_7b.init_args.judging.decoding.max_new_tokens=4")
    data = [f"--data.instances={written('i.json', INSTANCES)}", f"--data.responses={answers}", *KEPT]
    main(["test", "--config", str(HERE / "judge_prometheus_7b.yaml"), *QUIET, *data, *judge])
    assert metrics()["biggen/parse_failure_rate"] == 1.0  # four tokens are cut off, and a forced verdict is no score
    assert metrics()["biggen/coverage"] == 0.0
    main(["test", "--config", str(HERE / "judge_prometheus_7b.yaml"), *QUIET, *data, *judge])  # from the log
    assert metrics(1) == metrics()


def test_an_evaluator_is_trained_asked_and_compared_with_the_human():
    world = [f"--data.{name}.init_args.seed=1" for name in ("train", "val")]
    few = ["--data.train.init_args.trained=90", "--data.val.init_args.held_out=9", "--data.batch_size=8"]
    main(["fit", "--config", str(HERE / "mini_evaluator.yaml"), *QUIET, *world, *few, "--trainer.max_steps=2"])
    judge = "--model.judges.evaluator.init_args.backbone.init_args.path=runs/version_0"
    main(["test", "--config", str(HERE / "mini_agreement.yaml"), *QUIET, judge, "--data.results.init_args.instances=1"])
    found = metrics(1)
    assert found["agreement/evaluator/dropped"] + found["agreement/evaluator/pooled/n"] == 36


def test_the_study_is_whole():
    study = read_study(HERE / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)


def test_the_study_on_real_answers_is_whole_and_runs():
    """On made-up answers of their schema: 80 prompts with rubrics of their own, four answers each, three scores."""
    study = read_study(HERE.parent / "biggen_bench_smollm2" / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)
    assert len(study.seeds) >= 5
    levels = {f"score{score}_description": f"worth {score}" for score in range(1, 6)}
    rows = [
        {"id": f"{prompt}-{n}", "instruction": f"why {prompt}?", "response": "so " * n, "reference_answer": "so"}
        | {"rubric": {"criteria": f"on {prompt}", **levels}, "scores": [n, n, 5], "feedbacks": ["a", "b", "c"]}
        for prompt in range(80)
        for n in range(1, 5)
    ]
    file = Path("data/evaluator/vicuna_eval.jsonl")
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = run_quick("biggen_bench_smollm2", {"tune", "test_untuned"})
    assert missing(work) == []
    tested = [stage for stage in work.stages.values() if stage.verb == "test"]
    assert len(tested) == len(study.arms)
    assert {json.loads(stage.marker.read_text())["direct/n"] for stage in tested} == {8}
