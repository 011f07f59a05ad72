"""Evaluators of the past and of the present are compared with the human on the same answers."""

from __future__ import annotations

import json

import pytest

from datamodules.biggen_results import BiggenResults
from lm.judging.requests import ProgrammaticJudge
from modules.biggen_bench.judge_agreement import JudgeAgreement
from tests.stand_ins import trainer
from text.errors import UserError
from worlds import RubricWorld
from worlds.rubrics import score_by_rubric

WORLD = RubricWorld(instances=6)
PROGRAM = ProgrammaticJudge(other=score_by_rubric)


def measured(folder, module, data, **more) -> dict:
    trainer(folder, **more).test(module, data)
    return module.results


def test_a_judge_that_reads_the_rubric_agrees_and_one_on_record_is_beside_it(tmp_path):
    found = measured(tmp_path, JudgeAgreement({"program": PROGRAM}), BiggenResults(WORLD))
    assert found["agreement/program/pooled/pearson"] == found["agreement/gold/pooled/pearson"] > 0.85
    assert found["agreement/panel/pooled/n"] == 3 * 12 * 6
    assert found["agreement/program/model_ranks"] == pytest.approx(1)
    assert found["models/program/middle/c2"] < found["models/program/middle/c0"]
    assert found["models/human/good"] > found["models/human/weak"]


def test_a_rubric_that_says_nothing_is_worth_nothing(tmp_path):
    """A judge that is told nothing comes to no verdict; all answers are dropped and counted."""
    data = BiggenResults(RubricWorld(instances=2, granularity="coarse"), judges=[])
    found = measured(tmp_path, JudgeAgreement({"program": PROGRAM}), data)
    assert found["agreement/program/dropped"] == 72
    assert found["agreement/program/pooled/pearson"] is None


def test_rows_that_an_evaluator_was_trained_on_do_not_count_for_it(tmp_path):
    rows = [
        {"id": f"x_{n}", "model_name": "m", "capability": "safety", "task": "t", "human_score": n, "gpt4_score": n}
        | {"bgb_score": [n, None], "used_for_training": n == 1}
        for n in (1, 2, 4, 5)
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measured(tmp_path, JudgeAgreement(), BiggenResults(str(tmp_path / "r.jsonl"), unseen_only=["bgb"]))
    counts = [found[f"agreement/{name}/pooled/n"] for name in ("gpt4", "bgb", "panel")]
    assert counts == [4, 3, 3]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="no evaluator"):
        measured(tmp_path, JudgeAgreement(), BiggenResults(WORLD, judges=[]))
    with pytest.raises(UserError, match="'gold' is the name of another"):
        measured(tmp_path, JudgeAgreement({"gold": PROGRAM}), BiggenResults(WORLD))
    (tmp_path / "r.jsonl").write_text(
        json.dumps({"id": "x", "model_name": "m", "capability": "a", "task": "t", "response": "r"}) + "\n"
    )
    with pytest.raises(UserError, match="'x' has no rubric"):
        measured(tmp_path, JudgeAgreement({"program": PROGRAM}), BiggenResults(str(tmp_path / "r.jsonl")))
