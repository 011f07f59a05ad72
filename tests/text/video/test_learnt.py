"""What is learnt of a record about a video, of each form that a record has."""

from __future__ import annotations

from typing import Any

import pytest

from text.errors import DataFormatError
from text.records import Located
from text.video.learnt import learnt_of, worse_of
from text.video.video_records import VideoRecord


def located(**fields: Any) -> Located[VideoRecord]:
    return Located(VideoRecord.model_validate({"video": "a.mp4"} | fields), "clips.jsonl:3", 2)


def test_questions_are_learnt_one_by_one():
    asked = [
        {"id": "why", "question": "why ?", "answer": "it falls", "type": "cause"},
        {"question": "which ?", "options": ["a dog", "a cat"], "answer": "B", "rejected": "a dog"},
    ]
    first, second = learnt_of(located(id="a", questions=asked, task="watch"))
    assert first == ("a#why", "why ?", "it falls", "cause")
    assert second == ("a#1", "which ?\nA. a dog\nB. a cat", "B. a cat", "watch")
    assert worse_of(located(id="a", questions=asked)) == {"a#1": "A. a dog"}
    assert [one.name for one in learnt_of(located(questions=asked))] == ["clips.jsonl:3#why", "clips.jsonl:3#1"]


def test_every_answer_of_a_conversation_is_learnt_and_what_is_not_to_be_trained_is_not():
    said = [("user", "what ?"), ("assistant", "a ball"), ("user", "and then ?"), ("assistant", "it falls")]
    turns = [{"role": role, "content": content} for role, content in said]
    first, last = learnt_of(located(id="a", messages=turns))
    assert (first.name, first.answer, len(first.prompt)) == ("a#1", "a ball", 1)
    assert (last.name, last.answer, len(last.prompt), last.kind) == ("a", "it falls", 3, "")
    turns[1]["train"] = False  # type: ignore[assignment]
    assert [one.answer for one in learnt_of(located(messages=turns))] == ["it falls"]
    assert learnt_of(located(id="a", prompt="how ?", output="so", aspect="way")) == [("a", "how ?", "so", "way")]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"questions": [{"question": "a", "answer": "b"}, {"question": "c"}]}, r"'questions': \[1\]\.answer: missing"),
        ({"prompt": "a"}, "no answer of the assistant to learn from"),
    ],
)
def test_a_record_without_an_answer_is_refused(fields: dict[str, Any], why: str):
    with pytest.raises(DataFormatError, match=r"clips\.jsonl:3: .*" + why):
        learnt_of(located(**fields))
