"""Records of videos: the forms that are read, and what is refused, by field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from text.video.video_records import Question, VideoRecord

LISTED = "Which way?\nA. left\nB. right"
TURNS = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A dog."}]
LLAVA = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A dog."}]


def read(**fields: Any) -> VideoRecord:
    return VideoRecord.model_validate({"id": "a", "video": "a.mp4"} | fields)


def test_forms_become_one():
    for record in (read(messages=TURNS), read(conversations=LLAVA), read(prompt="What?", output="A dog.")):
        assert record.prompt[0].content == "What?"
        assert record.spoken.content == "A dog."
    assert read(conversations=LLAVA).family == "llava"
    within = [{"role": "user", "content": "Look at <video>\nand tell."}, TURNS[1]]
    assert read(messages=within).prompt[0].content == "Look at and tell."
    assert VideoRecord.model_validate({"image": "a.png", "prompt": "What?"}).video == "a.png"
    asked = read(questions=[{"question": "Which?", "options": ["a dog", "a cat"], "answer": "B"}]).questions[0]
    assert asked.asked == "Which?\nA. a dog\nB. a cat"
    assert {asked.shown(said) for said in ("B", "a cat", "B.", "(B)", "B. a cat", "B) A cat.")} == {"B. a cat"}
    free = "It is B.", "A man turns left.", "J. Smith did it.", "C. Darwin did it.", "C. up\nand down", "J. Smith"
    going_on = "A. left\nBecause the ball rolls.", "A. left, as the ball rolls", "(B) Right: it rolls."
    for answer in ("A", "B.", "A. left", "B) Right.", "left", *free, *going_on):
        assert read(questions=[{"question": LISTED, "answer": answer}]).questions[0].shown(answer) == answer
    listed = "He names:\nA. Einstein\nC. Curie"  # no list of options: there is no B
    assert read(questions=[{"question": listed, "answer": "C"}]).questions[0].asked == listed
    told = read(prompt="What?", transcript=[{"start": 1, "end": 2.5, "text": "Hello."}])
    assert told.speech == "Speech [1.0-2.5]: Hello."


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({}, "questions", "give 'questions', 'messages' or 'prompt'"),
        ({"prompt": "a", "messages": TURNS}, "prompt", "one of them"),
        ({"questions": []}, "questions", "must not be empty"),
        (
            {"questions": [{"question": "Which?", "options": ["a", "b"], "answer": "B", "rejected": "b"}]},
            "questions",
            "'rejected' is the answer itself",
        ),
        ({"questions": [{"question": "a", "id": "1"}, {"question": "b"}]}, "questions", "two have the id '1'"),
        ({"prompt": "a", "start": 2, "end": 1}, "end", "must be later"),
        ({"prompt": "a", "start": -1}, "start", "greater than or equal to 0"),
        ({"prompt": "a", "video": ["a.png"]}, "fps", "needs the rate"),
        ({"prompt": "a", "video": []}, "fps", "needs the rate"),
        ({"prompt": "a", "video": None, "start": 1}, "start", "there is no video"),
        ({"conversations": LLAVA, "video": None}, "conversations", "names a <video>, and the record has none"),
        (
            {"messages": [{"role": "user", "content": "<video> <video> what?"}]},
            "messages",
            "names 2 videos",
        ),
        ({"messages": TURNS[::-1]}, "messages", "conversation begins with the user"),
        ({"prompt": "a", "image": "a.png"}, "image", "one record shows one thing"),
        (
            {"prompt": "a", "transcript": [{"start": 2, "end": 3, "text": "b"}, {"start": 1, "end": 2, "text": "a"}]},
            "transcript",
            "not in the order of time",
        ),
        ({"prompt": "a", "transcript": [{"start": 2, "end": 1, "text": "b"}]}, "transcript", "must not be earlier"),
        (
            {"questions": [{"id": "a", "question": "b"}, {"question": "c", "rephrases": "d"}]},
            "questions",
            "no earlier question has the id 'd'",
        ),
        (
            {"questions": [{"question": "Which?", "options": ["a", "b"], "answer": "C"}]},
            "questions",
            "'C' is no option and no letter from A to B",
        ),
        (
            {"questions": [{"question": "Which?", "options": ["a", "b"], "answer": "A. b"}]},
            "questions",
            "'A. b' is no option",
        ),
        (
            {"questions": [{"question": "Which?", "options": ["a", "a"], "answer": "a"}]},
            "questions",
            "'options': 'a' is there twice",
        ),
        ({"conversations": [LLAVA[0], TURNS[1]]}, "conversations", "turns with 'from' and turns with 'role'"),
        *(
            (
                {"questions": [{"question": LISTED, "answer": answer, "rejected": "A"}]},
                "questions",
                f"'answer': '{answer}' is none of the options of the question (A. left; B. right)",
            )
            for answer in ("K", "C", "D. up", "B. left", "B. left, it rolls", "A. lefty")
        ),
        ({"prompt": LISTED, "output": "C."}, "prompt", "the answer 'C.' is none of the options"),
        (
            {"conversations": [{"from": "human", "value": LISTED}, {"from": "gpt", "value": "C. up"}]},
            "conversations",
            "the answer 'C. up' is none of the options",
        ),
    ],
)
def test_what_is_wrong_is_said_by_field(fields: dict[str, Any], field: str, why: str):
    with pytest.raises(ValidationError) as caught:
        read(**fields)
    problems = {str(error["loc"][0]): error["msg"] for error in caught.value.errors()}
    assert field in problems
    assert why in problems[field]


def test_a_question_has_at_most_eight_options():
    with pytest.raises(ValidationError, match="at most 8"):
        Question(question="Which?", options=[str(n) for n in range(9)], answer="A")


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ({}, "Speech [0.0-2.0]: one\nSpeech [2.0-5.0]: two\nSpeech [5.0-5.0]: now\nSpeech [8.0-9.0]: three"),
        ({"start": 2.0}, "Speech [0.0-3.0]: two\nSpeech [3.0-3.0]: now\nSpeech [6.0-7.0]: three"),
        ({"start": 3.0, "end": 8.5}, "Speech [0.0-2.0]: two\nSpeech [2.0-2.0]: now\nSpeech [5.0-5.5]: three"),
        ({"start": 5.0, "end": 8.0}, "Speech [0.0-0.0]: now"),
        ({"start": 9.0}, ""),
    ],
)
def test_what_is_said_has_the_clock_of_the_part_that_is_looked_at(window: dict, told: str):
    """Frames of a part are told with times from its beginning; so is speech."""
    said = [(0, 2, "one"), (2, 5, "two"), (5, 5, "now"), (8, 9, "three")]
    transcript = [{"start": start, "end": end, "text": text} for start, end, text in said]
    asked = [{"question": "what ?", "answer": "that"}]
    assert read(questions=asked, transcript=transcript, **window).speech == told
