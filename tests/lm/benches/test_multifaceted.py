"""What the judge is asked, and what becomes of its verdicts."""

from __future__ import annotations

import json

import pytest

from lm.benches.multifaceted import RubricBench, RubricJudging, instance_scores, question, rubric_scores
from lm.judging.requests import Verdict
from lm.protocols import Benchmark
from text.chat.multifaceted import BenchRecord
from text.errors import UserError
from text.records import Located

FIVE = {str(score): f"worth {score}" for score in range(1, 6)}
RUBRIC = [{"criteria": name, "name": name, "score_descriptions": FIVE} for name in ("kind", "short")]


def located(*records: dict) -> list[Located]:
    return [Located(BenchRecord.model_validate(one | {"rubric": RUBRIC}), f"f:{n}", n) for n, one in enumerate(records)]


RECORDS = located(
    {"id": "a", "system": "s1", "prompt": "U", "group_id": "g", "source": "A", "reference_answer": "best"},
    {"id": "b", "system": "s2", "prompt": "U", "group_id": "g", "source": "A"},
    {
        "id": "c",
        "prompt": [
            {"role": "user", "content": "V"},
            {"role": "assistant", "content": "W"},
            {"role": "user", "content": "X"},
        ],
        "source": "B",
    },
)


class Script:
    """Gives the scores it is told, in the order of the questions, and keeps those."""

    def __init__(self, *scores: float | None):
        self.scores, self.asked = list(scores), []

    def judge(self, requests):
        self.asked += requests
        return [Verdict(score=self.scores.pop(0)) for _ in requests]


def test_one_question_a_rubric_in_the_form_of_the_paper():
    judge = Script(*[3.0] * 6)
    bench = RubricBench(RECORDS)
    assert isinstance(bench, Benchmark)
    assert bench.requests() == RECORDS
    bench.score(["x", "y", "z"], judge)
    assert [(one.instruction, one.responses, one.rubric.name, one.reference) for one in judge.asked] == [
        ("s1\nU", ("x",), "kind", "best"),
        ("s1\nU", ("x",), "short", "best"),
        ("s2\nU", ("y",), "kind", None),
        ("s2\nU", ("y",), "short", None),
        ("V\nW\nX", ("z",), "kind", None),
        ("V\nW\nX", ("z",), "short", None),
    ]
    assert len({one.id for one in judge.asked}) == 6
    assert question(located({"prompt": "U", "system": ""})[0].record) == "U"


def test_runs_are_averaged_before_rubrics():
    scores = RubricBench(RECORDS[:1], RubricJudging(runs=3)).judge(["x"], Script(5, 1, None, 1, 2, 1))
    assert scores.scores == [[[5, 1], [None, 1], [2, 1]]]
    assert instance_scores(scores) == [(3.5 + 1) / 2]
    assert rubric_scores(scores) == [[3.5, 1.0]]
    assert (scores.nulls, scores.questions) == (1, 6)


def test_empty_answers_score_one_without_the_judge():
    judge = Script(4, 4)
    judged = RubricBench(RECORDS[:2]).judge([" \n", "y"], judge)
    assert (instance_scores(judged), judged.empty, len(judge.asked)) == ([1.0, 4.0], 1, 2)
    judged = RubricBench(RECORDS[:2], RubricJudging(empty_policy="judge")).judge(["", "y"], judge := Script(2, 2, 4, 4))
    assert (instance_scores(judged), judged.empty, len(judge.asked)) == ([2.0, 4.0], 1, 4)


def test_sensitivity_puts_the_questions_of_each_about_the_other():
    judge = Script(*[5] * 6, 1, 1, 2, 2)
    report = RubricBench(RECORDS, RubricJudging(sensitivity=True)).report([["x"], ["y"], ["z"]], judge)
    assert [(one.instruction, one.responses) for one in judge.asked[6:]] == [("s1\nU", ("y",))] * 2 + [
        ("s2\nU", ("x",))
    ] * 2
    assert report.scalars["sensitivity"] == 3.5  # (5 - 1 + 5 - 2) / 2: c has no variant
    assert [row["swapped"] for row in report.rows] == [1, 2, None]


def test_an_opponent_is_judged_by_the_same_judge(tmp_path):
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps({"id": name, "response": name}) + "\n" for name in "cba"))
    judging = RubricJudging(baseline_responses=str(tmp_path / "theirs.jsonl"))
    report = RubricBench(RECORDS, judging).report(
        [["x"], ["y"], ["z"]], judge := Script(5, 5, 4, 4, 2, 2, 3, 3, 4, 4, 2, 2)
    )
    assert [one.responses[0] for one in judge.asked[6::2]] == ["a", "b", "c"]
    assert [row["outcome"] for row in report.rows] == ["win", "tie_good", "tie_bad"]
    found = {name: report.scalars[name] for name in ("win_rate", "tie_win_rate", "tie_win_rate_all")}
    assert found == pytest.approx({"win_rate": 1 / 3, "tie_win_rate": 2 / 3, "tie_win_rate_all": 1})
    assert (report.scalars["tie_win_rate/A"], report.scalars["tie_win_rate/B"]) == (1, 0)


def test_several_answers_make_a_curve_and_the_first_is_scored():
    report = RubricBench(RECORDS[:2]).report([["x", "y"], ["z", "z z"]], Script(1, 1, 3, 3, 2, 2, 3, 3))
    assert report.scalars["score"] == 2
    assert report.scalars["best_of/1"] == (1.5 + 3) / 2
    assert report.scalars["best_of/2"] == (2 + 3) / 2
    assert report.scalars["dist_2"] == pytest.approx((0 + 1 / 3) / 2)
    assert report.rows[0]["draws"] == [1.0, 2.0]


def test_without_a_judge_nothing_is_scored():
    with pytest.raises(UserError, match="without a judge"):
        RubricBench(RECORDS).score(["x", "y", "z"], None)
    with pytest.raises(UserError, match="'runs' is 0"):
        RubricJudging(runs=0)
