"""The bench takes answers from a model or from a file, and says what is missing; see tests/lm/benches/."""

from __future__ import annotations

import json

import pytest

from datamodules.multifaceted_bench import MultifacetedPrompts
from datamodules.prompts import Prompts
from lm.backbones.encoder import WordTokenizer
from lm.benches.multifaceted import RubricJudging
from lm.forests.batches import PromptBatch
from lm.generation.decoding import Decoding
from lm.judging.requests import ProgrammaticJudge
from modules.janus.multifaceted_bench import MultifacetedBench, RecordedBench
from tests.stand_ins import scratch, trainer
from text.errors import UserError
from worlds import ValueMessages, value_scores

WORLD = ValueMessages(instructions=20, test_records=6)
JUDGE = ProgrammaticJudge({name: getattr(value_scores, name) for name in ("content", "opening", "closing", "joint")})


def golden(folder, **changes: str) -> str:
    lines = [{"id": r["id"], "response": changes.get(r["source"], r["output"])} for r in WORLD.records("test")]
    (folder / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / "golden.jsonl")


def measured(folder, module, data) -> dict:
    trainer(folder).test(module, data)
    return module.results


def test_golden_answers_score_five_by_source(tmp_path):
    found = measured(tmp_path, RecordedBench(JUDGE), MultifacetedPrompts(WORLD, golden(tmp_path, no_system="")))
    assert found["bench/score/unseen_value"] == 5.0
    assert (found["bench/score/no_system"], found["bench/empty"]) == (1.0, 6)
    assert found["bench/score"] == pytest.approx((5 * 5 + 1) / 6)
    assert found["bench/valid"] is True


def test_an_untrained_model_is_beaten_by_golden_answers(tmp_path):
    module = MultifacetedBench(
        scratch(), JUDGE, RubricJudging(baseline_responses=golden(tmp_path)), Decoding(max_new_tokens=4), samples=2
    )
    data = MultifacetedPrompts(WORLD, tokenizer=WordTokenizer(eos_token="[END]"), batch_size=7)
    found = measured(tmp_path, module, data)
    assert found["bench/tie_win_rate"] < 0.2
    assert found["bench/instances"] == 36


def test_what_is_missing_is_said(tmp_path):
    words = WordTokenizer(eos_token="[END]")
    with pytest.raises(UserError, match=r"give data\.responses"):
        RecordedBench.test_step(Asked(MultifacetedPrompts(WORLD)), PromptBatch([], [0], [], []), 0)
    with pytest.raises(UserError, match="use MultifacetedPrompts"):
        trainer(tmp_path).test(MultifacetedBench(scratch(), JUDGE), TestedPrompts(["Why?"], tokenizer=words))


@pytest.mark.parametrize("limit", [{"limit_test_batches": 1}, {"fast_dev_run": True}])
@pytest.mark.parametrize("sensitivity", [False, True])
def test_a_limit_of_batches_judges_what_there_is(tmp_path, limit, sensitivity, capsys):
    judging = RubricJudging(baseline_responses=golden(tmp_path), sensitivity=sensitivity)
    data = MultifacetedPrompts(WORLD, golden(tmp_path), batch_size=7)
    trainer(tmp_path, **limit).test(module := RecordedBench(JUDGE, judging), data)
    assert (module.results["bench/instances"], module.results["bench/score"]) == (6, 5.0)
    told = capsys.readouterr().out
    assert "6 of 36 instances: the others were left out by a limit of batches" in told
    assert "18 of 18 verdicts (100.0 %) could be read" in told


class Asked(RecordedBench):
    """With data, without a run."""

    def __init__(self, data):
        super().__init__(JUDGE)
        self.data = data

    @property
    def _data(self):
        return self.data


class TestedPrompts(Prompts):
    """Prompts without rubrics, in a test."""

    __test__ = False

    def test_dataloader(self):
        return self.predict_dataloader()
