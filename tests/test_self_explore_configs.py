"""The stages of Self-Explore through the command line, each on the files of the one before, and as they stand."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from studies.plan import read_study
from text.reasoning.reasoning_records import AnswerRecord, ExplorationRecord, MinedPair, QuestionRecord, SampleRecord
from worlds.chain_arithmetic import ChainArithmetic

HERE = Path(__file__).parents[1] / "configs" / "self_explore"
STAGES = sorted(file.name for file in HERE.glob("*.yaml") if file.stem not in ("study", "start"))
TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--model.init_args.backbone.config={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, "
    "num_attention_heads: 2, max_position_embeddings: 96}",
]
WORLD = ["--data.init_args.train.init_args.train=40", "--data.init_args.train.init_args.answer_only=10"]
SHORT = ["--model.init_args.decoding.max_new_tokens=16", *WORLD]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def run(verb: str, stage: str, *options: str) -> Path:
    root = Path("runs") / stage
    main([verb, "--config", str(HERE / f"{stage}.yaml"), *TINY, f"--trainer.default_root_dir={root}", *options])
    return max(root.glob("version_*"), key=lambda run: int(run.name.removeprefix("version_")))


def records(path: Path, kind) -> list:
    return [kind.model_validate_json(line) for line in path.read_text().split("\n") if line]


def lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", STAGES)
def test_every_config_builds_as_it_stands(name):
    built = main(["--config", str(HERE / name), "--trainer.accelerator=cpu"], run=False)
    kinds = {"sft": "SFT", "rft": "SFT", "sample": "Sampler", "test": "Sampler", "explore": "Explorer"}
    assert type(built.model).__name__ == kinds.get(name.removesuffix(".yaml"), "DPO")


def trained() -> str:
    fitted = run("fit", "sft", *WORLD, "--trainer.max_steps=1", "--data.init_args.batch_size=8")
    checkpoint = min(fitted.glob("checkpoints/*.ckpt"))
    return f"--ckpt_path={checkpoint.resolve()}"


def test_samples_are_the_same_in_any_batches_and_are_not_drawn_again():
    weights = trained()
    first = run("predict", "sample", *SHORT, weights)
    found = records(first / "samples.jsonl", SampleRecord)
    assert [record.id for record in found] == [*(f"train-{n}" for n in range(40)), *(f"more-{n}" for n in range(10))]
    assert all(len(record.samples) == 8 and record.model for record in found)
    assert len({sample.text for record in found for sample in record.samples}) > 100  # draws differ
    (kept,) = Path("cache/rollouts").glob("*.rank0.jsonl")
    # A run that was killed while it wrote: what is whole is taken, the rest is drawn again.
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    again = run(
        "predict", "sample", *SHORT, weights, "--data.init_args.questions=7", "--model.init_args.max_batch_tokens=500"
    )
    for name in ("samples", "rft", "pairs"):
        assert (again / f"{name}.jsonl").read_bytes() == (first / f"{name}.jsonl").read_bytes()
    size = kept.stat().st_size
    # What is kept is judged anew: by another checker, and where the data bring the samples.
    everything = "".join(sample.text for record in found for sample in record.samples)
    before_digits = next(re.finditer(r"([^0-9\s\"\\])[0-9]", everything))[1]
    other = ["--data.init_args.checker=NumberChecker", f'--data.init_args.checker.prefixes=["{before_digits}"]']
    brought = f"--data.init_args.samples={first / 'samples.jsonl'}"
    for options in (other, [*other, brought]):
        judged = records(run("predict", "sample", *SHORT, weights, *options) / "samples.jsonl", SampleRecord)
        assert [[s.tokens for s in r.samples] for r in judged] == [[s.tokens for s in r.samples] for r in found]
        answers = [[[s.answer for s in record.samples] for record in them] for them in (judged, found)]
        assert answers[0] != answers[1]
    assert kept.stat().st_size == size


def test_samples_are_mined_anew_but_not_those_of_another_checkpoint(capsys):
    weights = trained()
    drawn = run("predict", "sample", *SHORT, weights)
    file = f"--data.init_args.samples={drawn / 'samples.jsonl'}"
    all_of_them = ["--model.init_args.mining.require_answer=false", "--model.init_args.mining.include_gold=true"]
    mined = run("predict", "sample", *SHORT, weights, file, *all_of_them)
    assert (mined / "samples.jsonl").read_bytes() == (drawn / "samples.jsonl").read_bytes()
    assert len(records(mined / "pairs.jsonl", MinedPair)) > len(records(drawn / "pairs.jsonl", MinedPair))
    with pytest.raises(SystemExit):
        run("predict", "sample", *SHORT, file)  # weights of chance
    assert "samples.jsonl:1: field 'model': drawn by '" in capsys.readouterr().err
    again = run("predict", "sample", *SHORT, file, "--model.init_args.allow_stale=true")
    assert (again / "pairs.jsonl").read_bytes() == (drawn / "pairs.jsonl").read_bytes()


def test_pairs_are_explored_and_stopping_early_changes_no_pair():
    weights = trained()
    # Solutions of one line that say 'A' and a digit are right by chance now and then.
    pairs = [
        MinedPair(
            id=f"q{n}-0",
            question_id=f"q{n}",
            group_id=f"q{n}",
            prompt=f"0{n}+1=?\n",
            chosen=f"A{n}",
            rejected="x\ny\nA99",
            gold=f"{n}",
        ).model_dump(exclude_none=True)
        for n in range(6)
    ]
    given = [f"--data.init_args.pairs={lines(Path('pairs.jsonl'), pairs)}", *SHORT, weights]
    first = run("predict", "explore", *given)
    found = records(first / "explorations.jsonl", ExplorationRecord)
    assert [record.pair_id for record in found] == [pair["id"] for pair in pairs]
    assert all(record.steps == ["x\n", "y\n", "A99"] and record.ends == [(1, 2), (3, 4), (7, 7)] for record in found)
    for record in found:
        assert record.status == "pit"
        assert not next(probe for probe in record.probes if probe.step == record.pit).success
    full = run("predict", "explore", *given, "--model.init_args.early_stop=false", "--data.init_args.questions=2")
    assert (full / "gpairs.jsonl").read_bytes() == (first / "gpairs.jsonl").read_bytes()
    waves = run("predict", "explore", *given, "--model.init_args.draws_per_wave=3", "--model.init_args.engine=plain")
    assert (waves / "gpairs.jsonl").read_bytes() == (first / "gpairs.jsonl").read_bytes()
    granular = records(first / "gpairs.jsonl", MinedPair)
    assert granular
    assert all(pair.kind == "granular" and pair.pit for pair in granular)
    counts = json.loads((first / "counts.json").read_text())
    assert counts["explore/pairs"] == 6
    assert counts["explore/draws"] == sum(len(probe.completions) for record in found for probe in record.probes)
    assert counts["explore/pit_accuracy"] == sum(record.pit == 1 for record in found) / 6  # 'x' is no sum
    assert "explore/nonmonotone" not in counts
    assert json.loads((first / "metrics.json").read_text())["explore/pit_accuracy"] == counts["explore/pit_accuracy"]
    whole = records(first / "outcome_pairs.jsonl", MinedPair)
    assert [pair.id for pair in whole] == [pair.id for pair in granular]
    assert all((pair.rejected, len(pair.rejected_tokens)) == ("x\ny", 3) for pair in whole)


def test_what_the_ablations_reject(capsys):
    weights = trained()
    row = {"id": "q-0", "question_id": "q", "prompt": "01+1=?\n", "chosen": "A1", "rejected": "x\ny\nA99", "gold": "1"}
    given = [f"--data.init_args.pairs={lines(Path('pairs.jsonl'), [row])}", *SHORT, weights]
    rejected = "--model.init_args.rejected=last_pit"
    with pytest.raises(SystemExit):
        run("predict", "explore", *given, rejected)
    assert "'rejected: last_pit' needs verdicts on all steps: set 'search: all'" in capsys.readouterr().err
    done = run("predict", "explore", *given, rejected, "--model.init_args.search=all")
    (found,) = records(done / "explorations.jsonl", ExplorationRecord)
    assert [probe.step for probe in found.probes] == [1, 2, 3]
    assert json.loads((done / "counts.json").read_text())["explore/nonmonotone"] in (0.0, 1.0)
    without = ["--data.init_args.train=pool.jsonl"]
    lines(Path("pool.jsonl"), [{"question": "01+1=?", "rationale": "01+1=02\nA02"}])
    plain = run("predict", "explore", *given[:1], *without, "--model.init_args.decoding.max_new_tokens=16", weights)
    assert not {"explore/pit_accuracy", "explore/sound_after_pit"} & {*json.loads((plain / "counts.json").read_text())}


def test_training_reads_what_the_other_stages_write():
    world = ChainArithmetic(train=20, kind="granular")
    for stage in ("dpo", "outcome_dpo"):
        file = lines(Path("pairs.jsonl"), world.records("train"))
        done = run(
            "fit", stage, f"--data.init_args.train={file}", "--trainer.max_steps=1", "--data.init_args.batch_size=4"
        )
        assert json.loads((done / "metrics.json").read_text())
    rft = [
        QuestionRecord(id="a-0", group_id="a", question="01+1=?", rationale="01+1=02\nA02", gold="02").model_dump(
            exclude_none=True
        )
    ]
    run(
        "fit",
        "rft",
        f"--data.init_args.train={lines(Path('rft.jsonl'), rft)}",
        "--trainer.max_steps=1",
        "--data.init_args.batch_size=1",
    )


def test_a_file_of_questions_is_tested():
    weights = trained()
    questions = [{"id": str(n), "question": f"0{n}+1=?", "gold": f"0{n + 1}"} for n in range(5)]
    asked = [f"--data.init_args.test={lines(Path('questions.jsonl'), questions)}", *SHORT, weights]
    tested = run("test", "test", *asked)
    scores = json.loads((tested / "metrics.json").read_text())
    assert {"test/accuracy", "test/unparsed", "test/cut_off"} <= {*scores}
    answers = records(tested / "answers.jsonl", AnswerRecord)
    assert all(answer.response for answer in answers)
    assert [(one.id, one.gold) for one in answers] == [(one["id"], one["gold"]) for one in questions]
    assert sum(one.correct for one in answers) / 5 == pytest.approx(scores["test/accuracy"])
    sampled = ["--model.init_args.num_samples=3", "--model.init_args.decoding.temperature=0.7"]
    scores = json.loads((run("test", "test", *asked, *sampled) / "metrics.json").read_text())
    assert {"test/maj@3", "test/pass@3", "test/sample_accuracy"} <= {*scores}


def test_a_checker_that_is_named_takes_the_place_of_the_chains_own(capsys):
    file = lines(Path("questions.jsonl"), [{"question": "What is 1 + 1?", "answer": "It is 1 + 1 = 2.\n#### 2"}])
    asked = [f"--data.init_args.test={file}", *SHORT]
    with pytest.raises(SystemExit):
        run("test", "test", *asked)
    assert "not found in a solution by ChainChecker('A') (data.checker names another)" in capsys.readouterr().err
    folder = run("test", "test", *asked, "--data.init_args.checker=NumberChecker")
    (answer,) = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert answer["gold"] == "2"


def test_a_question_without_an_answer_is_named(capsys):
    questions = [{"question": "01+1=?", "gold": "02"}, {"question": "02+1=?"}, {"question": "03+1=?", "gold": "many"}]
    file = lines(Path("questions.jsonl"), questions)
    with pytest.raises(SystemExit):
        run("test", "test", f"--data.init_args.test={file}", *SHORT)
    told = capsys.readouterr().err
    assert f"{file}:2: field 'gold': missing" in told
    assert f"{file}:3: field 'gold': 'many' cannot be read by ChainChecker('A') (data.checker names another)" in told


def test_the_study_compares_like_with_like():
    """Arms of stage 5 differ in what they reject and in their rate alone; ablations, in what they are named for."""
    study = read_study(HERE / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)
    dpo, outcome = study.stages["dpo"].set, study.stages["outcome_dpo"].set
    assert {key for key in dpo | outcome if dpo.get(key) != outcome.get(key)} == {"data.train"}
    for arm in [*study.arms.values(), *study.ablations.values()]:
        assert arm.stages[-1] == "measure"
        assert all(
            "seed_everything" in study.stages[name].set for name in arm.stages if study.stages[name].verb == "fit"
        )
    usual = study.arms["self_explore"].set
    for name, arm in study.ablations.items():
        assert arm.stages == study.arms["self_explore"].stages
        assert arm.set["measure"] == usual["measure"]
        assert usual["dpo"].items() <= arm.set["dpo"].items(), name


def test_what_the_paper_gains():
    """Figure 3: the gains of the abstract are means over three models."""
    found = {
        name: numbers
        for _, claim in read_study(HERE / "study.yaml").claims
        for table in (claim.paper or {}).values()
        for name, numbers in table.items()
    }
    sft, ours = found["SFT"], found["Self-Explore"]
    assert sum(map(float.__sub__, ours, sft)) / 3 == pytest.approx(11.573, abs=5e-4)
    assert [round(a - b, 2) for a, b in zip(ours, found["DPO"], strict=True)] == [2.2, 2.2, 3.79]
