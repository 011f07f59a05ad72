"""Answers come from a model, from a file, or are scored already; see also tests/lm/benches/test_biggen.py."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.biggen import BiggenData
from datamodules.prompts import Prompts
from lm.backbones.encoder import WordTokenizer
from lm.backbones.kept_key import Keeper
from lm.benches.biggen import Grading
from lm.generation.decoding import Decoding
from lm.judging.requests import ProgrammaticJudge, Verdict
from modules.biggen_bench.biggen_bench import BiggenBench, RecordedBiggen
from tests.stand_ins import scratch, trainer
from text.errors import UserError
from worlds import RubricWorld
from worlds.rubrics import score_by_rubric

WORLD = RubricWorld(instances=3)
OWN = {"extra_capabilities": ["c0", "c1", "c2"]}
PROGRAM = ProgrammaticJudge(other=score_by_rubric)


def measured(folder, module, data, **more) -> dict:
    trainer(folder, **more).test(module, data)
    return module.results


def data(**more) -> BiggenData:
    return BiggenData(WORLD, tokenizer=WordTokenizer(eos_token="[END]"), batch_size=7, **OWN, **more)


def test_answers_on_record_are_judged_under_their_own_rubrics(tmp_path):
    strong = {
        model: measured(tmp_path, RecordedBiggen({"p": PROGRAM}), data(responses=RubricWorld(instances=3, model=model)))
        for model in ("good", "weak")
    }
    assert strong["good"]["biggen/overall_macro"] > strong["weak"]["biggen/overall_macro"] + 1
    gold = [row["gold_score"] for row in WORLD.records("results") if row["model_name"] == "good"]
    assert strong["good"]["biggen/overall_micro"] == pytest.approx(sum(gold) / len(gold))
    assert {"biggen/c0", "biggen/c0/t3", "biggen/coverage", "biggen/parse_failure_rate"} <= strong["good"].keys()


def test_scores_on_record_need_nobody(tmp_path):
    module = RecordedBiggen()
    assert not list(module.parameters())
    found = measured(tmp_path, module, data(scores=WORLD))
    scores = [row["score"] for row in WORLD.records("scores")]
    assert found["biggen/overall_micro"] == pytest.approx(sum(scores) / len(scores))


def test_a_model_answers_and_a_table_and_a_figure_are_kept(tmp_path):
    module = BiggenBench(scratch(), {"p": PROGRAM}, decoding=Decoding(max_new_tokens=4))
    found = measured(tmp_path, module, data(), logger=TensorBoardLogger(str(tmp_path), "run", ""))
    assert found["biggen/coverage"] == 1.0
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 1})
    events.Reload()
    assert events.Tags()["images"] == ["biggen"]
    table = events.Tensors("biggen/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| mean over capabilities (macro) | 36 | 1.00 |" in table
    report = (tmp_path / "run" / "bench" / "report.md").read_text()
    assert "does not see the system prompt" in report
    again = measured(tmp_path, RecordedBiggen(), data(scores=str(tmp_path / "run" / "bench" / "instances.jsonl")))
    assert again["biggen/overall_macro"] == found["biggen/overall_macro"]
    recorded = data(responses=str(tmp_path / "run" / "bench" / "instances.jsonl"))
    assert measured(tmp_path, RecordedBiggen({"p": PROGRAM}), recorded) == found


def test_a_run_that_was_broken_off_goes_on_to_the_same_report(tmp_path):
    class Program:
        """Whose verdicts are kept, as those of a language model are."""

        def judge(self, requests):
            return PROGRAM.judge(requests)

        def kept_by(self):
            return Keeper("weights", "words", "settings", "float32")

    class Fails(Program):
        def judge(self, requests):
            raise RuntimeError("broken off")

    def bench(judge, log):
        return BiggenBench(
            scratch(),
            {"p": judge},
            Grading(),
            Decoding(max_new_tokens=4, temperature=1.0),
            kept_answers=str(tmp_path / log),
        )

    torch.manual_seed(1)
    whole = measured(tmp_path / "a", bench(Program(), "one"), data())
    torch.manual_seed(1)
    with pytest.raises(RuntimeError, match="broken off"):
        measured(tmp_path / "b", bench(Fails(), "two"), data())
    torch.manual_seed(1)
    module = bench(Program(), "two")
    assert measured(tmp_path / "b", module, data()) == whole
    assert module.engine.found == 36
    torch.manual_seed(1)
    again = bench(Fails(), "two")  # all verdicts are there
    assert measured(tmp_path / "b", again, data()) == whole
    assert again.judges["p"].asked == 0


def test_what_is_missing_is_said(tmp_path):
    words = WordTokenizer(eos_token="[END]")
    with pytest.raises(UserError, match=r"give data\.responses or data\.scores"):
        measured(tmp_path, RecordedBiggen({"p": PROGRAM}), data())
    with pytest.raises(UserError, match="nobody judges"):
        measured(tmp_path, RecordedBiggen(), data(responses=WORLD))
    with pytest.raises(UserError, match="use MultifacetedPrompts or BiggenData"):
        measured(tmp_path, BiggenBench(scratch(), {"p": PROGRAM}), Tested(["Why?"], tokenizer=words))
    with pytest.raises(UserError, match="nothing to train"):
        RecordedBiggen().configure_optimizers()


class Tested(Prompts):
    """Prompts without rubrics, in a test."""

    __test__ = False

    def test_dataloader(self):
        return self.predict_dataloader()


def test_a_comparison_with_another_model(tmp_path):
    theirs = tmp_path / "weak.jsonl"
    rows = [row for row in WORLD.records("results") if row["model_name"] == "weak"]
    theirs.write_text("".join(json.dumps({"id": row["id"], "score": row["gold_score"]}) + "\n" for row in rows))
    found = measured(
        tmp_path,
        RecordedBiggen({"p": PROGRAM}),
        data(responses=RubricWorld(instances=3, model="good"), versus=str(theirs)),
    )
    assert found["biggen/versus/macro"] > 1
    assert found["biggen/versus/wins"] > found["biggen/versus/losses"]


@pytest.mark.parametrize("limit", [{"limit_test_batches": 1}, {"fast_dev_run": True}])
def test_a_limit_of_batches_judges_what_there_is(tmp_path, limit, capsys):
    found = measured(tmp_path, RecordedBiggen({"p": PROGRAM}), data(responses=WORLD), **limit)
    assert found["biggen/coverage"] == pytest.approx(6 / 36)
    assert "6 of 36 instances: the others were left out by a limit of batches" in capsys.readouterr().out


def test_examples_of_what_could_not_be_read_are_shown(tmp_path, capsys):
    class Vague(ProgrammaticJudge):
        def judge(self, requests):
            return [
                Verdict(score=3.0, parsed=False, reason="no_marker", feedback=f"Well, {one.id}") for one in requests
            ]

    found = measured(tmp_path, RecordedBiggen({"v": Vague()}), data(responses=WORLD))
    assert found["biggen/parse_failure_rate"] == 1
    assert "biggen/c0" not in found
    told = capsys.readouterr().out
    assert "0 of 36 verdicts (0.0 %) could be read" in told
    assert "- `no_marker`: 36" in told
    assert told.count("Well, ") == 3
