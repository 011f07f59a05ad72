"""Axes of answers about videos by hand: what a judge is shown, means of what it said, gains over controls."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from datamodules.video_answers import VideoAnswers
from lm.benches.video_axes import AxesBench
from lm.judging.requests import JudgeRequest, ProgrammaticJudge, Verdict
from modules.pegasus.judged_video_bench import JudgedVideoBench
from tests.conversation_files import jsonl
from tests.stand_ins import trainer
from text.errors import DataFormatError, UserError
from text.records import Located
from text.video.answer_records import QuestionRecord
from text.video.axes import AXES, axes_of

RECORDS: list[dict[str, Any]] = [
    {"id": "a#0", "video": "a", "prompt": "what is it ?", "answer": "a red ball", "response": "a ball"},
    {"id": "a#1", "video": "a", "prompt": "what first ?", "answer": "it falls", "type": "temporal", "response": "up"},
    {"id": "a#2", "video": "a", "prompt": "who ?", "answer": "two men", "type": "consistency", "response": "two"},
    {"id": "a#3", "video": "a", "prompt": "how many men ?", "answer": "two men", "type": "consistency"}
    | {"rephrases": "a#2", "response": "three"},
    {"id": "b#0", "video": "b", "prompt": "what happens ?", "answer": "a long story", "type": "summary"}
    | {"response": "short"},
    {"id": "b#1", "video": "b", "prompt": "why ?", "answer": "because", "response": " "},
]


class Asked(ProgrammaticJudge):
    """Scores by axis and answer; keeps what it was asked."""

    def __init__(self, scores: dict[tuple[str, str], float | None]):
        super().__init__()
        self.scores, self.seen = scores, list[JudgeRequest]()

    def judge(self, requests: Any) -> list[Verdict]:
        self.seen += requests
        given = [self.scores.get((one.rubric.name, one.responses[0]), 3.0) for one in requests]
        return [Verdict(parsed=False, reason="no_marker") if one is None else Verdict(score=one) for one in given]


def bench(*records: dict[str, Any]) -> tuple[AxesBench, list[str | None]]:
    read = [Located(QuestionRecord.model_validate(one), f"said.jsonl:{n + 1}", n) for n, one in enumerate(records)]
    return AxesBench(read), [one.record.prediction for one in read]


def test_axes_are_those_of_the_kind_of_question():
    assert axes_of(None, False) == axes_of("summary", False) == ("correctness", "detail", "context")
    assert axes_of("temporal", False) == axes_of("order", False, ("order",)) != ("correctness",)
    assert axes_of("consistency", False) == ()  # with its second wording alone
    assert axes_of("anything", True) == ("consistency",)
    assert all(len(rubric.score_descriptions) == 5 for rubric in AXES.values())


@pytest.mark.oracle("JudgedVideoBench")
def test_scores_are_means_of_what_the_judge_said_and_the_rest_is_counted():
    judge = Asked({("correctness", "a ball"): 4.0, ("detail", "a ball"): None, ("temporal", "up"): None})
    made, said = bench(*RECORDS)
    told = made.report(said, judge)
    names = [(one.id, one.rubric.name) for one in judge.seen]
    assert names == [
        ("a#0/correctness", "correctness"),
        ("a#0/detail", "detail"),
        ("a#0/context", "context"),
        ("a#1/temporal", "temporal"),
        ("a#3/consistency", "consistency"),
        ("b#0/correctness", "correctness"),
        ("b#0/detail", "detail"),
        ("b#0/context", "context"),
    ]  # nobody is asked about an answer without a word
    pair = next(one for one in judge.seen if one.rubric.name == "consistency")
    assert pair.instruction == "Wording 1: who ?\nWording 2: how many men ?"
    assert pair.responses == ("Answer to wording 1: two\nAnswer to wording 2: three",)
    assert {one.reference for one in judge.seen} == {"a red ball", "it falls", "two men", "a long story"}
    scores = told.scalars
    assert scores["correctness"] == (4 + 1) / 2  # an empty answer scores 1
    assert (scores["detail"], scores["detail/unread"], scores["detail/unread_as_lowest"]) == (1, 1, 1)
    assert math.isnan(scores["temporal"])  # never guessed
    assert (scores["temporal/unread"], scores["temporal/unread_as_lowest"]) == (1, 1)
    assert scores["consistency"] == scores["summary/average"] == 3
    assert scores["accuracy"] == 50  # of "a ball" and nothing
    assert scores["summary/rouge_l"] == 0  # "short" of "a long story"
    assert "6 of 11 verdicts" not in told.text
    assert "9 of 11 verdicts (81.8 %) could be read" in told.text
    assert "`no_marker`: 2" in told.text
    assert [row["score"] for row in told.rows[:4]] == [4.0, None, 3.0, None]


def test_what_order_is_worth_is_paired():
    judge = Asked({("temporal", "up"): 5.0, ("temporal", "down"): 2.0, ("correctness", "a dog"): None})
    made, said = bench(*RECORDS[:2])
    told = made.report(said, judge, {"reversed": ["a dog", "down"]}).scalars
    assert (told["temporal"], told["reversed/temporal"], told["gain/reversed/temporal"]) == (5, 2, 3)
    assert math.isnan(told["gain/reversed/correctness"])  # no answer has a score in both
    assert told["gain/reversed/detail"] == 0


def test_an_answer_is_right_if_its_main_claims_are_and_wrong_if_nobody_could_read_that():
    records = [{"id": str(n), "video": str(n), "prompt": "what ?", "answer": "a"} for n in range(4)]
    judge = Asked(
        {("correctness", word): score for word, score in (("yes", 5.0), ("so", 4.0), ("no", 3.0), ("hm", None))}
    )
    made, _ = bench(*records)
    told = made.report(["yes", "so", "no", "hm"], judge, {"reversed": ["no"] * 4}).scalars
    assert (told["accuracy"], told["reversed/accuracy"], told["correctness"]) == (50, 0, 4)


def test_summaries_overlap_with_their_references():
    summary = RECORDS[4] | {"answer": "a red square moves left then a blue disc moves up"}
    made, _ = bench(summary, summary | {"id": "c#0", "video": "c"}, RECORDS[0])
    said = ["a red square moves left and a blue disc moves up", None, "a ball"]
    told = made.report(said, Asked({}), {"none": [None] * 3}).scalars
    assert told["summary/rouge_l"] == pytest.approx(100 * 0.9091 / 2, abs=1e-2)  # as rouge-score has it; nothing is 0
    assert told["none/summary/rouge_l"] == 0


def test_a_pair_of_which_one_is_missing_scores_one():
    made, _ = bench(*RECORDS[2:4])
    judge = Asked({})
    assert made.report(["two", None], judge).scalars["consistency"] == 1
    assert not judge.seen


@pytest.mark.parametrize(
    ("change", "told"),
    [({"rephrases": "a#9"}, "there is no question 'a#9'"), ({"answer": "six"}, "is not that of 'a#2'")],
)
def test_pairs_that_are_none_are_refused(change: dict[str, str], told: str):
    with pytest.raises(DataFormatError, match=r"said\.jsonl:2: .*" + told):
        bench(RECORDS[2], RECORDS[3] | change)


@pytest.mark.oracle("JudgedVideoBench.judge", "JudgedVideoBench.temporal", "JudgedVideoBench.name")
def test_a_test_writes_the_means(tmp_path: Path):
    source = jsonl(tmp_path / "said.jsonl", *RECORDS[:2], RECORDS[4])
    other = jsonl(tmp_path / "reversed.jsonl", *(one | {"response": "down"} for one in [*RECORDS[:2], RECORDS[4]]))
    judge = Asked({("temporal", "down"): 1.0, ("temporal", "short"): 4.0})
    module = JudgedVideoBench(judge, temporal=["temporal", "summary"], name="axes")
    trainer(tmp_path, logger=True).test(module, VideoAnswers(source, controls={"reversed": other}), verbose=False)
    assert module.results["axes/temporal"] == 3
    assert module.results["axes/summary/temporal"] == 4
    assert module.results["axes/gain/reversed/temporal"] == 2
    (lines,) = tmp_path.rglob("axes/answers.jsonl")
    assert json.loads(lines.read_text().splitlines()[-1])["score"] == 4
    with pytest.raises(UserError, match="use VideoAnswers"):
        module.tell(None)


def test_published_names_and_messages_are_read():
    (one, two), said = (
        bench(
            {"video_name": "v_1", "Q": "what ?", "A": "a dog", "pred": "a cat"},
            {
                "id": "m",
                "video": "a",
                "prompt": [{"role": "user", "content": "why ?"}],
                "answer": "so",
                "response": "no",
            },
        )[0].questions,
        ["a cat", "no"],
    )
    assert [one.record.prediction, two.record.prediction] == said
    assert (one.record.video_id, one.record.question, two.record.question) == ("v_1", "what ?", "why ?")
