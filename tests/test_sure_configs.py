"""SuRe through the command line: a run serves all assertions; configs build as they stand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from tests.retrieval_folders import encoder_folder, jsonl
from text.qa.sure_records import SuReRecord

HERE = Path(__file__).parents[1] / "configs" / "sure"
MODELS = ("mini_test", "nq", "hotpotqa", "llama3_8b")
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
UNTRAINED = [*CPU, "--model.init_args.backbone.name_or_path=builtin:untrained"]
TWO = ["--model.init_args.pipeline.k=2", "--model.init_args.pipeline.pool=8"]
TINY = [
    *CPU,
    *TWO,
    "--data.init_args.test.init_args.questions=6",
    "--data.init_args.test.init_args.test_facts=4",
    "--data.init_args.n_passages=4",
]
LINES = ("answers.jsonl", "tasks.jsonl")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(verb: str, *options: str, config: str = "mini_test") -> Path:
    main([verb, "--config", str(HERE / f"{config}.yaml"), *TINY, "--trainer.default_root_dir=runs", *options])
    return max(Path("runs").glob("version_*"), key=lambda run: int(run.name.removeprefix("version_")))


@pytest.mark.parametrize("name", MODELS)
def test_configs_build_as_they_stand(name, folder):
    built = main(["--config", str(HERE / f"{name}.yaml"), *(UNTRAINED if name != "mini_test" else CPU)], run=False)
    assert type(built.model).__name__ == "SuRe"
    assert type(built.datamodule).__name__ == "Questions"


@pytest.mark.parametrize("name", ["likelihood", "dense", "preference"])
def test_overlays_compose(name, folder):
    configs = [f"--config={HERE / f'{one}.yaml'}" for one in ("nq", name)]
    built = main([*configs, *UNTRAINED], run=False)
    model = built.model
    assert (model.pipeline.selection, model.rerank is None, model.preference is None) == {
        "likelihood": ("soft", True, True),
        "dense": ("official", False, True),
        "preference": ("official", True, False),
    }[name]


def _asked(files):
    """What is kept an answer of, by key; the first line of a file tells what made it."""
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(line["key"] for line in lines if "key" in line)


def test_nothing_is_asked_twice_and_files_are_the_same_bytes(folder, capsys):
    first = run("predict")
    records = [SuReRecord.model_validate_json(line) for line in (first / "answers.jsonl").read_text().splitlines()]
    assert [record.id for record in records] == [f"test-{n}" for n in range(6)]
    assert all(len(record.candidates) == 2 and len(record.comparisons) == 2 for record in records)
    assert {step.stage for step in records[0].trace} == (
        {"none", "base", "pool", "validity 1", "validity 2", "ranking 1", "ranking 2"}
    )
    kept = sorted(Path("cache/rollouts").glob("*.jsonl"))
    asked = _asked(kept)
    assert len(set(asked)) == len(asked)
    # Killed while it wrote: what is whole is taken, the rest is asked again, in other batches and by another engine.
    for file in kept:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = run("predict", "--data.init_args.batch_size=4", "--model.init_args.max_batch_tokens=300")
    for name in LINES:
        assert (again / name).read_bytes() == (first / name).read_bytes()
    assert _asked(kept) == asked  # sizes may differ: other batches give other last digits of log-probs
    plain = run("predict", "--model.init_args.engine=plain")
    assert (plain / "answers.jsonl").read_bytes() == (first / "answers.jsonl").read_bytes()
    tested = run("test")
    metrics = json.loads((tested / "metrics.json").read_text())
    named = ("em", "f1", "em_base", "f1_base", "em_none", "f1_none", "oracle_em", "validity_accuracy", "position_bias")
    changes = ("changed/right_to_wrong", "changed/wrong_to_right")
    unread = ("unparsed/candidates", "unparsed/validity", "unparsed/ranking")
    assert {*named, "ranking_accuracy", *changes, *unread} <= metrics.keys()
    assert metrics["unparsed/validity"] == 1.0  # weights of chance say nothing that could be read
    assert _asked(kept) == asked
    assert (tested / "sure" / "report.md").read_text().startswith("## Answers")
    rows = [json.loads(line) for line in (tested / "sure" / "per_question.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [record.id for record in records]
    assert "'answers'" not in capsys.readouterr().err


def test_a_template_changes_what_is_asked(folder):
    run("predict", "--data.init_args.test.init_args.questions=2")
    kept = max(Path("cache/rollouts").glob("*.jsonl"), key=lambda file: file.stat().st_size)
    before = kept.read_bytes()
    run("predict", "--data.init_args.test.init_args.questions=2", "--data.init_args.template.wording.closed_book=X ")
    assert kept.read_bytes().startswith(before)
    assert len(kept.read_bytes()) > len(before)


def test_examples_of_two_candidates_cannot_ask_for_more(folder, capsys):
    small = ["--data.init_args.test.init_args.questions=2", "--model.init_args.pipeline.k=3"]
    with pytest.raises(SystemExit):
        main(["test", "--config", str(HERE / "nq.yaml"), *UNTRAINED, *small, "--trainer.default_root_dir=runs"])
    assert "'k' is 3, and few-shot demonstrations propose two candidates" in capsys.readouterr().err


def test_the_tasks_are_learnt_in_the_style_in_which_they_are_asked(folder):
    small = ["--data.init_args.train.init_args.contexts=2", "--trainer.max_steps=1", "--data.init_args.batch_size=4"]
    small += ["--data.init_args.train.init_args.held_out=1", "--trainer.limit_val_batches=1"]
    built = main(["fit", "--config", str(HERE / "tasks.yaml"), *UNTRAINED, *small, "--trainer.default_root_dir=runs"])
    asked = main(["--config", str(HERE / "nq.yaml"), *UNTRAINED], run=False)
    assert built.datamodule.template == asked.datamodule.template


def test_what_is_wrong_is_told_on_one_screen(folder, capsys):
    Path("q.jsonl").write_text(json.dumps({"id": "x", "question": "who?", "answers": ["a"], "contexts": []}) + "\n")
    with pytest.raises(SystemExit):
        main(["test", "--config", str(HERE / "mini_test.yaml"), *CPU, "--data.init_args.test=q.jsonl"])
    told = "q.jsonl:1: field 'contexts': empty. Give the passages of the question, or give a corpus"
    assert told in capsys.readouterr().err


def test_an_encoder_searches_a_corpus_and_ranks_again(folder):
    encoder = encoder_folder(folder / "encoder", initializer_range=0.5)
    texts = ["operating cost", "parks common", "all being", "about cost", "the parks", "i am"]  # words that it knows
    corpus = jsonl(folder / "corpus.jsonl", [{"id": f"p{n}", "text": text} for n, text in enumerate(texts)])
    asked = [{"question": text, "answers": ["x"]} for text in ("parks", "cost of", "i being")]
    dense = {"class_path": "lm.retrieval.DenseRetriever", "init_args": {"encoder": encoder}}
    options = [
        f"--data.init_args.test={jsonl(folder / 'q.jsonl', asked)}",
        f"--data.init_args.corpus={corpus}",
        f"--data.init_args.retriever={json.dumps(dense)}",
        f"--model.init_args.rerank={json.dumps(dense)}",
        "--data.init_args.n_passages=3",
    ]
    main(["predict", "--config", str(HERE / "mini_test.yaml"), *CPU, *TWO, "--trainer.default_root_dir=runs", *options])
    lines = Path("runs/version_0/answers.jsonl").read_text().splitlines()
    records = [SuReRecord.model_validate_json(line) for line in lines]
    assert len({tuple(context.id for context in record.contexts) for record in records}) > 1
    assert {len(record.contexts) for record in records} == {3}
    assert {tuple(record.reranked) for record in records} == {("first", "question", "generic", "sure")}
    files = [file for file in Path("cache").rglob("*") if file.is_file() and "rollouts" not in file.parts]
    embedded = {file: file.stat().st_mtime_ns for file in files}
    assert embedded
    main(["test", "--config", str(HERE / "mini_test.yaml"), *CPU, *TWO, "--trainer.default_root_dir=runs", *options])
    assert {file: file.stat().st_mtime_ns for file in embedded} == embedded  # made once
    metrics = json.loads(Path("runs/version_1/metrics.json").read_text())
    assert {"em_reranked/sure", "em_from_generic", "retrieval/answer_hit@1"} <= metrics.keys()
