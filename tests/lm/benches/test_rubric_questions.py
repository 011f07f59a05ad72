"""How questions are put: see also tests/lm/benches/test_multifaceted.py and tests/lm/benches/test_biggen.py."""

from __future__ import annotations

import pytest

from lm.benches.rubric_questions import Asking, put_questions
from lm.judging.requests import JudgeRequest, ProgrammaticJudge, SharedJudge, Verdict
from text.errors import UserError
from text.judging.rubrics import Rubric

RUBRIC = Rubric(criteria="c", score_descriptions={str(score): "-" for score in range(1, 6)})


class Script:
    def __init__(self, *scores):
        self.scores, self.asked = list(scores), []

    def judge(self, requests):
        self.asked += requests
        return [Verdict(score=self.scores.pop(0), feedback=request.id) for request in requests]


def two(number: int, response: str) -> list[JudgeRequest]:
    return [JudgeRequest(f"{number}/{place}", "i", (response,), RUBRIC) for place in range(2)]


def test_runs_and_rubrics_keep_their_places():
    judge = Script(1, 2, None, 4, 5, 1, 2, 3)
    judged = put_questions(judge, ["x", None, "y"], two, Asking(runs=2))
    assert [one.id for one in judge.asked] == ["0/0", "0/1", "0/0", "0/1", "2/0", "2/1", "2/0", "2/1"]
    assert judged.scores == [[[1, 2], [None, 4]], [], [[5, 1], [2, 3]]]
    assert judged.feedback == ["0/0", "", "2/0"]
    assert (judged.questions, judged.nulls, judged.empty) == (8, 1, 0)


def test_empty_answers_need_no_judge():
    judged = put_questions(Script(), [" ", None], two, Asking(runs=2))
    assert (judged.scores, judged.empty) == ([[[1, 1], [1, 1]], []], 1)
    assert put_questions(judge := Script(3, 3), [""], two, Asking(empty_policy="judge")).scores == [[[3, 3]]]
    assert len(judge.asked) == 2
    with pytest.raises(UserError, match="'runs' is 0"):
        Asking(runs=0)


def test_a_program_for_rubrics_without_a_name_of_their_own():
    judge = ProgrammaticJudge({"kind": lambda request, response: 2.0}, lambda request, response: 4.0)
    named = RUBRIC.model_copy(update={"name": "kind"})
    asked = [JudgeRequest("a", "i", ("x",), named), JudgeRequest("b", "i", ("x",), RUBRIC)]
    assert [verdict.score for verdict in judge.judge(asked)] == [2.0, 4.0]


def test_one_rank_judges_all():
    requests = [JudgeRequest(str(n), "i", (f"r{n}",), RUBRIC) for n in range(5)]
    assert [one.feedback for one in SharedJudge(Script(*range(5))).judge(requests)] == list("01234")
    assert SharedJudge(Script()).judge([]) == []
