import pytest

from lm.judging.requests import Judge, JudgeRequest, ProgrammaticJudge, Verdict, preferred
from text.errors import UserError
from text.judging.rubrics import Rubric

RUBRIC = Rubric(criteria="Is it short?", score_descriptions={str(s): "-" for s in range(1, 6)}, name="short")


def shortness(request: JudgeRequest, response: str) -> float | None:
    return max(1.0, 5.0 - len(response.split())) if response else None


def request(*responses: str, rubric: Rubric = RUBRIC) -> JudgeRequest:
    return JudgeRequest("r1", "Say hello.", responses, rubric)


JUDGE = ProgrammaticJudge({"short": shortness})


def test_scores_single_answers_in_the_order_of_the_requests():
    assert isinstance(JUDGE, Judge)
    assert JUDGE.judge([request("a b c"), request("a")]) == [Verdict(score=2.0), Verdict(score=4.0)]


def test_compares_two_answers_by_their_scores():
    verdicts = JUDGE.judge([request("a", "a b"), request("a b", "a"), request("a b", "b a")])
    assert [verdict.preference for verdict in verdicts] == ["A", "B", "tie"]
    assert [verdict.score for verdict in verdicts] == [None] * 3


@pytest.mark.parametrize("responses", [("",), ("", "a"), ("a", "")])
def test_an_answer_without_a_score_leaves_no_verdict(responses):
    (verdict,) = JUDGE.judge([request(*responses)])
    assert verdict.unparsed
    assert verdict.reason == "no_value"


def test_a_verdict_is_parsed_if_it_says_anything():
    assert not Verdict(score=1.0).unparsed
    assert not Verdict(preference="tie").unparsed


def test_close_scores_can_be_a_tie():
    assert [preferred(3.0, 2.5, tie_within=width) for width in (0.0, 0.5)] == ["A", "tie"]


def test_refuses_a_rubric_it_cannot_judge():
    other = RUBRIC.model_copy(update={"name": "shrt"})
    with pytest.raises(UserError, match=r"r1.*no scorer.*'shrt'.*[Dd]id you mean: short"):
        JUDGE.judge([request("a", rubric=other)])


def test_refuses_three_answers():
    with pytest.raises(UserError, match="3 responses"):
        request("a", "b", "c")


def test_a_score_of_zero_is_a_score():
    judge = ProgrammaticJudge({"short": lambda request, response: 0.0})
    assert judge.judge([request("a")]) == [Verdict(score=0.0)]
