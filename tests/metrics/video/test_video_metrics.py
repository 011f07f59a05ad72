"""Accuracies of answers about videos, scores of facts and gains of order: by hand, and against published recounts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from datamodules.video_answers import VideoAnswers, VideoFacts
from metrics.video.choices import AnsweredQuestion, choice_report
from metrics.video.facts import Verdicts, fact_report
from metrics.video.temporal_gain import temporal_gains
from tests.conversation_files import jsonl
from tests.shared_data import SHARED
from text.errors import DataFormatError, UserError
from text.video.choices import form_of, is_readable, is_right, normalised

TEMPCOMPASS = {
    "multi-choice": (45.6, {"action": 76.0, "direction": 35.2, "speed": 35.6, "order": 37.7, "attribute_change": 41.0}),
    "yes_no": (56.4, {"action": 74.3, "direction": 51.8, "speed": 50.3, "order": 49.2, "attribute_change": 51.1}),
}


@pytest.mark.parametrize("form", TEMPCOMPASS)
def test_tempcompass_is_what_was_published(form: str):
    path = SHARED / "tempcompass" / f"{form}.video-llava.jsonl"
    if not path.is_file():
        pytest.skip("needs TempCompass in ../shared/data/tempcompass")
    data = VideoAnswers(str(path), str(path))
    data.setup("test")
    scalars = data.report().scalars
    average, aspects = TEMPCOMPASS[form]
    assert round(scalars["average"], 1) == average
    assert {name: round(scalars[f"aspect/{name}"], 1) for name in aspects} == aspects
    assert scalars["matched"] == 100
    assert scalars["agreement"] == 100
    if form == "multi-choice":
        assert round(scalars["fine/coarse-grained action"], 1) == 90.3


def test_vidfactscore_is_what_was_published():
    path = SHARED / "vidfactscore" / "pegasus_msrvtt_verdicts.jsonl"
    if not path.is_file():
        pytest.skip("needs verdicts in ../shared/data/vidfactscore")
    data = VideoFacts(str(path))
    data.setup("test")
    scalars = data.report().scalars
    expected = {"precision": 57.667, "recall": 46.881, "f1": 51.718}
    assert {name: scalars[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert scalars["f1_by_video"] == pytest.approx(44.340, abs=1e-3)
    assert scalars["precision_pooled"] == pytest.approx(57.80, abs=0.01)
    assert scalars["recall_pooled"] == pytest.approx(44.73, abs=0.01)


def test_facts_by_hand():
    found = fact_report(
        [Verdicts("A", ["yes", "no"], ["yes"]), Verdicts("B", [], ["no", "no"]), Verdicts("C", ["yes"], [])]
    )
    assert (found.videos, found.left_out) == (2, 1)
    assert found.scores["precision"]["value"] == 25
    assert found.scores["recall"]["value"] == 50
    assert found.scores["f1"]["value"] == pytest.approx(100 / 3)
    nothing = fact_report([Verdicts("A", ["No"], ["Yes."])])
    assert nothing.scores["f1"]["value"] == 0  # not NaN
    assert nothing.unread == 1
    untold = fact_report(
        [Verdicts("A", ["yes"], ["yes"]), Verdicts("B", [], ["yes"])]
    )  # no fact was told: none is known
    assert untold.scores["recall"]["value"] == untold.scores["recall_pooled"]["value"] == 50
    lenient = fact_report([Verdicts("A", ["No"], ["Yes.", "maybe"])], "lenient")
    assert lenient.scores["recall"]["value"] == 50
    assert lenient.unread == 1  # what is read as yes is read


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("B", "B. left", True),
        ("B. anything", "B. left", True),
        ("B) left", "B. left", True),
        ("A", "B. left", False),
        ("left", "B. left", None),
        ("I think it is B", "B. left", None),
        ("", "B. left", None),
        (None, "B. left", None),
    ],
)
def test_choices_are_matched_and_not_guessed(prediction: str | None, answer: str, right: bool | None):
    assert is_right("multi_choice", prediction, answer) is right


def test_only_the_letters_of_a_question_choose():
    two, five = "Which?\nA. left\nB. right", "Which?\n(A) a\n(B) b\n(C) c\n(D) d\n(E) e"
    assert [is_right("multi_choice", said, "B. right", two) for said in ("B", "A.", "C", "G")] == [
        True,
        False,
        None,
        None,
    ]
    assert is_right("multi_choice", "E", "E. e", five) is True
    assert is_right("multi_choice", "G", "B. left") is None  # without a list A to D
    assert [is_readable("multi_choice", answer, two) for answer in ("B", "B. right", "B) Right.")] == [True] * 3
    assert not any(is_readable("multi_choice", answer, two) for answer in ("C", "D. z", "A. right", "right"))
    assert is_readable("multi_choice", "D. z", "Which?")


@pytest.mark.parametrize("listed", ["A. left\nB. right", "(A) left\n(B) right", "A) left\nB) right"])
def test_a_letter_may_stand_in_brackets_in_options_answers_and_predictions(listed: str):
    question = f"Where to?\n{listed}"
    for answer in (listed.split("\n")[0], "A", "(A)"):
        assert form_of(question, answer) == "multi_choice"
        assert is_readable("multi_choice", answer, question)
        for said in ("A", "A.", "(A)", "A) left", "(A) left", "A. left"):
            assert is_right("multi_choice", said, answer, question) is True, said
        for said in ("B", "(B)", "(B) right"):
            assert is_right("multi_choice", said, answer, question) is False, said
    assert is_right("multi_choice", "(C)", "A", question) is None


def test_other_forms():
    assert is_right("yes_no", "Yes, it does.", "yes") is True
    assert is_right("yes_no", "Perhaps.", "yes") is None
    question = "Which caption fits?\nCaption A: A dog runs.\nCaption B: A cat sits"
    for said in ("Caption B", "B", "B.", "A cat sits.", "Caption B: A cat sits", "caption b."):
        assert is_right("caption_matching", said, "Caption B: A cat sits", question) is True
    assert is_right("caption_matching", "Caption A", "Caption B: A cat sits", question) is False
    assert is_right("caption_matching", "a bird", "Caption B: A cat sits", question) is None
    options = "Which?\nOption 1: a\nOption 2: b"
    assert is_right("caption_matching", "2", "Option 2: b", options) is True
    assert form_of(question, "Caption A: A dog runs.") == "caption_matching"
    assert form_of("Which?\nA. a\nB. b", "A. a") == "multi_choice"
    assert form_of("Is it?", "no") == "yes_no"
    assert form_of("What is it?", "a dog") == "open"
    assert normalised("The Red.") == normalised("red")
    assert normalised("two") == "2"
    assert is_right("open", "A red one.", "red one") is True


def answered(rights: list[bool | None], aspects: str = "xy") -> list[AnsweredQuestion]:
    return [
        AnsweredQuestion(str(n), f"video {n // 2}", "yes_no", right, aspects[n % len(aspects)])
        for n, right in enumerate(rights)
    ]


def test_an_average_is_over_questions_and_what_cannot_be_read_is_wrong():
    found = choice_report(answered([True, True, None, False, True, True], "xxy"))
    assert found.scalars["average"] == pytest.approx(100 * 4 / 6)
    assert found.scalars["aspect/x"] == pytest.approx(75)
    assert found.scalars["aspect/y"] == pytest.approx(50)
    assert found.matched == pytest.approx(100 * 5 / 6)


def test_gains_are_paired_over_videos():
    rng = np.random.default_rng(0)
    order = [bool(x) for x in rng.random(200) < 0.9]
    control = [bool(x) for x in rng.random(200) < 0.5]
    gains = temporal_gains(answered(order), {"shuffled": answered(control), "same": answered(order)})
    assert gains["shuffled"]["value"] == pytest.approx(100 * (np.mean(order) - np.mean(control)))
    assert 0 < gains["shuffled"]["low"] < gains["shuffled"]["value"] < gains["shuffled"]["high"]
    assert gains["same"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # who does not look at order gains nothing
    assert {"shuffled/x", "shuffled/y"} <= gains.keys()
    with pytest.raises(ValueError, match="other questions"):
        temporal_gains(answered(order), {"less": answered(order[:-1])})


@pytest.fixture
def files(tmp_path) -> Iterator[tuple[str, list[dict]]]:
    asked = [{"video_id": f"v{n}", "question": "Is it?", "answer": "yes", "aspect": "a"} for n in range(3)]
    return jsonl(tmp_path / "test.jsonl", *asked), asked


def report(test: str, predictions: str, **options: object) -> dict[str, float]:
    data = VideoAnswers(test, predictions, **options)  # type: ignore[arg-type]
    data.setup("test")
    return data.report().scalars


@pytest.mark.parametrize(
    ("question", "answer", "form"),
    [
        ("Which?\nA. left\nB. right", "left", "auto"),
        ("Which?\nCaption A: a dog\nCaption B: a cat", "a bird", "auto"),
        ("Is it?", "yes, it is", "yes_no"),
    ],
)
def test_a_right_answer_that_nothing_could_equal_is_refused(tmp_path, question, answer, form):
    asked = {"video_id": "v", "question": question, "answer": answer, "prediction": "B"}
    data = VideoAnswers(jsonl(tmp_path / "test.jsonl", asked), form=form)
    data.setup("test")
    with pytest.raises(DataFormatError, match=rf"test.jsonl:1: field 'answer': '{answer}' is none of a question of"):
        data.report()


def test_predictions_find_their_questions(files, tmp_path):
    test, asked = files
    said = [{"video_id": q["video_id"], "question": q["question"], "prediction": "Yes"} for q in asked]
    whole = jsonl(tmp_path / "said.jsonl", *said)
    assert report(test, whole)["average"] == 100
    wrong = jsonl(tmp_path / "wrong.jsonl", *(one | {"prediction": "No"} for one in said))
    assert report(test, whole, controls={"shuffled": wrong})["gain/shuffled"] == 100
    assert report(test, jsonl(tmp_path / "one.jsonl", said[1]))["average"] == pytest.approx(100 / 3)  # others are wrong
    with pytest.raises(DataFormatError, match=r"no question of .* is answered by this prediction"):
        report(test, jsonl(tmp_path / "else.jsonl", *said, said[0] | {"question": "Is it not?"}))
    with pytest.raises(DataFormatError, match="answered already by another"):
        report(test, jsonl(tmp_path / "twice.jsonl", *said, said[0]))
    double = jsonl(tmp_path / "double.jsonl", *asked, asked[0] | {"answer": "no"})
    assert report(double, jsonl(tmp_path / "both.jsonl", *said, said[0]))["average"] == 75  # the second for the second
    with pytest.raises(DataFormatError, match="'id', or 'video_id' and 'question'"):
        report(test, jsonl(tmp_path / "nobody.jsonl", json.dumps({"prediction": "Yes"})))
    own = jsonl(tmp_path / "own.jsonl", *(q | {"id": f"q{n}"} for n, q in enumerate(asked)))
    assert report(own, whole)["average"] == 100  # by video and words, though the questions have ids
    with pytest.raises(DataFormatError, match="answered already by another"):
        report(own, jsonl(tmp_path / "again.jsonl", *said, {"id": "q0", "prediction": "Yes"}))
    written = [{"id": f"q{n}", "video": "v.mp4", "prompt": "Is it?", "response": "yes"} for n in range(3)]
    assert report(own, jsonl(tmp_path / "responses.jsonl", *written))["average"] == 100  # as `predict` writes them
    with pytest.raises(DataFormatError, match="no question of"):
        report(own, jsonl(tmp_path / "others.jsonl", {"id": "z", "prediction": "yes"}))


@pytest.mark.oracle("VideoFacts.controls", "VideoFacts.reading")
def test_gains_of_facts_are_paired_by_video(tmp_path):
    def line(video: str, told: list[str], known: list[str]) -> dict:
        return {"video_id": video, "precision_verdicts": told, "recall_verdicts": known}

    ordered = [line("A", ["yes", "Yes."], ["yes"]), line("B", ["yes"], ["yes", "no"]), line("C", ["yes"], [])]
    other = [line("B", ["no"], ["no", "no"]), line("A", ["yes", "no"], ["yes"]), line("C", [], [])]
    files = [jsonl(tmp_path / f"{n}.jsonl", *rows) for n, rows in enumerate((ordered, other, other[:2]))]
    data = VideoFacts(files[0], "lenient", {"shuffled": files[1]})
    data.setup("test")
    scalars = data.report().scalars
    assert (scalars["precision"], scalars["recall"]) == (100, 75)
    assert scalars["gain/shuffled/precision"] == pytest.approx(100 - 25)
    assert scalars["gain/shuffled/recall"] == pytest.approx(75 - 50)
    assert scalars["gain/shuffled/f1"] == pytest.approx(600 / 7 - 100 / 3)
    official = VideoFacts(files[0], controls={"shuffled": files[1]})
    official.setup("test")
    assert official.report().scalars["gain/shuffled/precision"] == pytest.approx(75 - 25)
    with pytest.raises(UserError, match=r"'shuffled' .* is not about the videos"):
        VideoFacts(files[0], controls={"shuffled": files[2]}).setup("test")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [("A", ["yes"]), ("B", ["no"]), ("A", ["no"])],
            r"facts\.jsonl:3: video 'A' has verdicts already, at .*jsonl:1",
        ),
        ([("A", []), ("B", [])], "no video has a fact of its reference: nothing can be scored"),
    ],
)
def test_verdicts_that_give_no_score_are_refused(tmp_path, rows, told):
    lines = [{"video_id": video, "precision_verdicts": ["yes"], "recall_verdicts": known} for video, known in rows]
    with pytest.raises(UserError, match=told):
        VideoFacts(jsonl(tmp_path / "facts.jsonl", *lines)).setup("test")
