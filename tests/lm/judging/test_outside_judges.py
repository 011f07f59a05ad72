"""Judges that are no language model asked in words: reward models and checkers of right answers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from lm.backbones.backbone import ScratchBackbone
from lm.judging.checker_judge import CheckerJudge
from lm.judging.requests import JudgeRequest
from lm.judging.reward_judge import RewardJudge
from text.errors import UserError
from text.judging.rubrics import Criterion
from text.reasoning.answers import NumberChecker


def asked(*responses, reference=None):
    return JudgeRequest("q", "how many?", responses, Criterion(criteria="right?"), reference)


@pytest.mark.oracle("GRPO.reward")
def test_a_right_answer_scores_one():
    judge = CheckerJudge(NumberChecker(["A"]), announced=0.25)
    said = ["3+4=7\nA7", "A8", "seven", "A7\nand more", ""]
    assert [one.score for one in judge.judge([asked(text, reference="7") for text in said])] == [1, 0.25, 0, 1, 0]
    assert [judge.judge([asked("A7", text, reference="7.0")])[0].preference for text in ("A8", "A7")] == ["A", "tie"]
    with pytest.raises(UserError, match="request 'q': no right answer to check by: records need 'gold'"):
        judge.judge([asked("A7")])
    with pytest.raises(UserError, match="'announced' is 1"):
        CheckerJudge(announced=1)


def test_rewards_are_scores_and_odds():
    """Bradley and Terry: the odds of two answers are exp of the difference of their rewards; each is rated once."""
    judge, rated = RewardJudge(ScratchBackbone("llama", {})), []

    def rate(records, answers):
        rated.extend((record["prompt"], text) for record, (text,) in zip(records, answers, strict=True))
        return [(None if not text else float(len(text)),) for (text,) in answers]

    judge.rater = SimpleNamespace(rate=rate)
    found = judge.judge(
        [asked("abc", "a"), asked("a", "abc"), asked("abc"), asked("", "a"), asked(""), asked("a", "a")]
    )
    assert [one.preference for one in found] == ["A", "B", None, "B", None, "tie"]
    assert found[0].probabilities[0] / found[0].probabilities[1] == pytest.approx(math.exp(2))
    assert (found[2].score, found[4].score, found[4].parsed) == (3.0, None, False)
    assert sorted(rated) == [("how many?", ""), ("how many?", "a"), ("how many?", "abc")]
    judge.empty = -3.0
    assert [one.score for one in judge.judge([asked(""), asked("abc")])] == [-3.0, 3.0]
    assert judge.judge([asked("", "a")])[0].preference == "B"
