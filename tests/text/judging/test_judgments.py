from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from datamodules.records import read_records
from text.errors import DataFormatError, UserError
from text.judging.judgments import Judgment, pairs_from_scores
from text.judging.rubrics import Criterion, Rubric

LEVELS = {f"score{score}_description": f"worth {score}" for score in range(1, 6)}
RUBRIC = {"criteria": "Is it kind?", **LEVELS}
DIRECT = {"instruction": "i", "response": "r", "rubric": RUBRIC}
PAIR = {"instruction": "i", "response_a": "a", "response_b": "b", "rubric": "Is it kind?"}
RENDERED = {"instruction": "### all of it", "input": "", "output": "f [RESULT] 4"}


def read(tmp_path, *records):
    file = tmp_path / "judged.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [found.record for found in read_records(str(file), Judgment)]


def test_our_own_fields(tmp_path):
    direct, pair = read(tmp_path, DIRECT | {"score": 4, "feedback": "f"}, PAIR | {"winner": "B", "source": "honest"})
    assert (direct.format, direct.responses, direct.verdict, direct.mean_score) == ("direct", ["r"], "4", 4)
    assert isinstance(direct.rubric, Rubric)
    assert (pair.format, pair.responses, pair.verdict) == ("pairwise", ["a", "b"], "B")
    assert type(pair.rubric) is Criterion
    assert pair.model_extra == {"source": "honest"}


def test_rows_of_the_feedback_collection(tmp_path):
    row = {"orig_instruction": " i ", "orig_response": "r", "orig_reference_answer": "ref", "orig_feedback": "f"}
    row |= {"orig_score": "4", "orig_criteria": "c", **{f"orig_{name}": text for name, text in LEVELS.items()}}
    (found,) = read(tmp_path, row | RENDERED)
    assert (found.instruction, found.responses, found.reference_answer) == ("i", ["r"], "ref")
    assert (found.score, found.feedback, found.rubric.criteria) == (4, "f", "c")
    assert found.rubric.score_descriptions["5"] == "worth 5"


def test_rows_of_the_preference_collection(tmp_path):
    row = {"orig_instruction": "i", "orig_response_A": "a", "orig_response_B": "b", "orig_reference_answer": "ref"}
    row |= {
        "orig_criteria": "c",
        "orig_score_A": "2",
        "orig_score_B": "5",
        "orig_preference": "B",
        "orig_feedback": "f",
    }
    (found,) = read(tmp_path, row | RENDERED | {"orig_feedback_A": "x", "orig_feedback_B": "y"})
    assert (found.responses, found.winner, found.feedback, found.rubric.criteria) == (["a", "b"], "B", "f", "c")
    with pytest.raises(DataFormatError, match=r"judged.jsonl:1: field 'winner': is A, but B has the higher score"):
        read(tmp_path, row | RENDERED | {"orig_preference": "A"})


@pytest.mark.parametrize(("label", "winner"), [(0, "A"), (1, "B"), (2, "tie")])
def test_rows_of_auto_j(tmp_path, label, winner):
    (found,) = read(tmp_path, {"prompt": "i", "response 1": "a", "response 2": "b", "label": label, "scenario": "s"})
    assert (found.instruction, found.responses, found.winner) == ("i", ["a", "b"], winner)


def test_the_place_of_what_is_chosen_is_drawn_from_the_record(tmp_path):
    rows = [{"instruction": f"i{n}", "chosen": "good", "rejected": "bad", "rubric": "c"} for n in range(200)]
    found = read(tmp_path, *rows)
    assert all(one.responses["AB".index(one.winner)] == "good" for one in found)
    assert 70 < Counter(one.winner for one in found)["A"] < 130
    assert [one.winner for one in read(tmp_path, *rows[::-1])] == [one.winner for one in found][::-1]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"score": 6}, "field 'score': should be less than or equal to 5"),
        ({"winner": "A"}, "field 'winner': given, but one response cannot have it"),
        ({"response": " "}, "field 'responses': [0]: must not be empty"),
        ({"chosen": "c"}, "field 'chosen': given, and 'response' too"),
        ({"rubric": {"criteria": "c", "score1_description": "x"}}, "score2_description: missing"),
        ({"rubric": {"criteria": ""}}, "field 'rubric': criteria: must not be empty"),
        ({"scores": []}, "field 'scores'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, complaint):
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, DIRECT, DIRECT | changes)
    assert "judged.jsonl:2: " in str(caught.value)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"score_a": "5", "score_b": 2}, "field 'score_a': should be a finite number, not '5'"),
        ({"score_a": 5, "score_b": [2]}, "field 'score_b': should be a finite number, not [2]"),
        ({"score_a": float("nan"), "score_b": 2}, "field 'score_a': should be a finite number, not nan"),
        ({"score_a": True, "score_b": 2}, "field 'score_a': should be a finite number, not True"),
    ],
)
def test_scores_of_two_responses_are_numbers(tmp_path, row, said):
    pair = {"instruction": "i", "response_a": "a", "response_b": "b", "rubric": "c", "winner": "A"}
    with pytest.raises(DataFormatError, match=re.escape(said)):
        read(tmp_path, pair | row)


@pytest.mark.parametrize("label", [3, True, [0], "0", {}])
def test_labels_of_auto_j_are_three_numbers(tmp_path, label):
    with pytest.raises(DataFormatError, match="field 'label': should be 0"):
        read(tmp_path, {"prompt": "i", "response 1": "a", "response 2": "b", "label": label})


@pytest.mark.parametrize("score", ["\u00b2", "\u0663", "6" * 5000, "", "4.0"])
def test_written_scores_are_one_to_five(tmp_path, score):
    row = {"orig_instruction": "i", "orig_response": "r", "orig_criteria": "c", "orig_score": score}
    with pytest.raises(DataFormatError, match="field 'orig_score': should be a score from 1 to 5") as refused:
        read(tmp_path, row)
    assert len(str(refused.value)) < 300


def test_half_a_pair_is_named(tmp_path):
    with pytest.raises(DataFormatError, match="field 'response_b': missing, and 'response_a' is there"):
        read(tmp_path, {"instruction": "i", "response_a": "a", "rubric": "c"})


def test_fields_have_one_name():
    with pytest.raises(UserError, match="by their own names"):
        Judgment.with_names({"response": "answer"})


def test_five_scores_make_ten_pairs_and_places_tell_nothing():
    groups = [
        Judgment.model_validate(DIRECT | {"instruction": f"i{group}", "response": f"r{score}", "score": score})
        for group in range(1000)
        for score in range(1, 6)
    ]
    pairs = pairs_from_scores(groups)
    assert len(pairs) == 10_000
    wins = Counter(pair.winner for pair in pairs)
    assert abs(wins["A"] - wins["B"]) <= 1
    for pair in pairs:
        extra = pair.model_extra
        assert (extra["score_a"] > extra["score_b"]) == (pair.winner == "A")
    by_gap = Counter((abs(p.model_extra["score_a"] - p.model_extra["score_b"]), p.winner) for p in pairs)
    assert all(0.4 < by_gap[gap, "A"] / (by_gap[gap, "A"] + by_gap[gap, "B"]) < 0.6 for gap in range(1, 5))
    assert not pairs_from_scores([groups[0], groups[0]])
