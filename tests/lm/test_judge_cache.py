"""A cached judge is asked once, knows by content, and survives being broken off."""

from __future__ import annotations

import pytest

from lm.judge_cache import CachedJudge
from lm.judging import Judge, JudgeRequest, Verdict
from text.errors import UserError
from text.rubrics import Rubric

RUBRIC = Rubric(criteria="Is it short?", score_descriptions={str(s): "-" for s in range(1, 6)})


class Counting:
    """Scores by a running number, so that every question it is asked shows."""

    def __init__(self, fails_at: int | None = None):
        self.asked, self.fails_at = 0, fails_at

    def judge(self, requests):
        verdicts = []
        for _ in requests:
            if self.asked == self.fails_at:
                raise RuntimeError("broken off")
            self.asked += 1
            verdicts.append(Verdict(score=float(self.asked), feedback="é\nwell"))
        return verdicts


def requests(*responses: str, id: str = "r", **more) -> list[JudgeRequest]:
    return [JudgeRequest(f"{id}{n}", "Say hello.", (text,), RUBRIC, **more) for n, text in enumerate(responses)]


def scores(judge, asked) -> list:
    return [verdict.score for verdict in judge.judge(asked)]


def test_the_second_run_asks_nothing(tmp_path):
    judge = CachedJudge(Counting(), "counting", tmp_path)
    assert isinstance(judge, Judge)
    first = judge.judge(requests("a", "b", "c"))
    again = CachedJudge(inner := Counting(), "counting", tmp_path)
    assert again.judge(requests("c", "a", "b", id="other names")) == [first[2], first[0], first[1]]
    assert (inner.asked, again.asked, again.found) == (0, 0, 3)


def test_what_a_judge_sees_decides(tmp_path):
    judge = CachedJudge(Counting(), "counting", tmp_path)
    judge.judge(requests("a"))
    other = RUBRIC.model_copy(update={"criteria": "Is it kind?"})
    for asked in (
        requests("b"),
        requests("a", reference="r"),
        [JudgeRequest("r0", "Say goodbye.", ("a",), RUBRIC)],
        [JudgeRequest("r0", "Say hello.", ("a",), other)],
        [JudgeRequest("r0", "Say hello.", ("a", "a"), RUBRIC)],
    ):
        before = judge.asked
        judge.judge(asked)
        assert judge.asked == before + 1
    assert CachedJudge(inner := Counting(), "another", tmp_path).judge(requests("a"))
    assert inner.asked == 1


def test_repeated_questions_of_one_call_are_runs_of_a_judge_that_draws(tmp_path):
    judge = CachedJudge(Counting(), "counting", tmp_path)
    assert scores(judge, requests("a", "a", "a")) == [1, 2, 3]
    assert scores(judge, requests("a", "a")) == [1, 2]
    assert scores(judge, requests("a", "a", "a", "a")) == [1, 2, 3, 4]


def test_a_run_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("lm.judge_cache.TOGETHER", 2)
    judge = CachedJudge(Counting(fails_at=3), "counting", tmp_path)
    with pytest.raises(RuntimeError):
        judge.judge(requests(*"abcd"))
    with judge.path.open("a") as file:
        file.write('{"key": "half a li')
    again = CachedJudge(inner := Counting(), "counting", tmp_path)
    assert scores(again, requests(*"abcd")) == [1, 2, 1, 2]
    assert inner.asked == 2
    assert scores(CachedJudge(Counting(), "counting", tmp_path), requests(*"dcba")) == [2, 1, 2, 1]


def test_files_that_are_none_and_judges_without_a_name(tmp_path):
    with pytest.raises(UserError, match="name of the judge"):
        CachedJudge(Counting(), " ", tmp_path)
    judge = CachedJudge(Counting(), "counting", tmp_path)
    judge.path.write_text('{"score": 1.0}\n')
    with pytest.raises(UserError, match=r"\.jsonl:1: not a verdict"):
        CachedJudge(Counting(), "counting", tmp_path)
