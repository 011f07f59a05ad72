"""Answers with scores on record: who is held out, which score is taught, and what takes the place of rubrics."""

import json

import pytest

from text.judging.judgments import Judgment
from worlds import RecordedScores

LEVELS = {f"score{score}_description": f"worth {score}" for score in range(1, 6)}
OTHER = {"criteria": "Is it good?", **LEVELS}


@pytest.fixture
def file(tmp_path):
    rows = [
        {"id": f"{prompt}-{n}", "instruction": f"why {prompt}?", "response": f"so {n}\x85"}
        | {"rubric": {"criteria": f"on {prompt}", **LEVELS}, "scores": [1 + (prompt + n) % 5, 5, 2]}
        for prompt in range(8)
        for n in range(3)
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def test_prompts_are_held_out_whole(file):
    world = RecordedScores(file, held_out=2, seed=3)
    train, test = world.records("train"), world.records("test")
    assert test == world.records("val")
    assert (len(train), len(test)) == (18, 6)
    assert not {row["instruction"] for row in train} & {row["instruction"] for row in test}
    assert RecordedScores(file, held_out=2, seed=4).records("test") != test


def test_the_median_is_taught_and_all_scores_are_measured_against(file):
    for row in RecordedScores(file, held_out=2).records("train"):
        judged = Judgment.model_validate(row)
        assert judged.score == sorted(row["scores"])[1]
        assert judged.mean_score == sum(row["scores"]) / 3


def test_one_rubric_for_all(file):
    own, other = (RecordedScores(file, rubric, held_out=2).records("test") for rubric in (None, OTHER))
    assert {row["rubric"]["criteria"] for row in own} == {f"on {row['instruction'][4]}" for row in own}
    assert [row | {"rubric": OTHER} for row in own] == other


def test_what_cannot_be_is_said(file, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.jsonl is not there: give 'file'"):
        RecordedScores("nowhere.jsonl").records("train")
    with pytest.raises(ValueError, match="from 1 to 7, of 8 prompts"):
        RecordedScores(file, held_out=8).records("train")
    with pytest.raises(ValueError, match="not 'dev'"):
        RecordedScores(file).records("dev")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"instruction": "a"}\n{\n')
    with pytest.raises(ValueError, match=r"broken\.jsonl:2: invalid JSON"):
        RecordedScores(str(broken)).records("train")


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"instruction": "a"}\n[1]\n')
    with pytest.raises(ValueError, match=r"scores\.jsonl:2: must be an object, an answer with its scores"):
        RecordedScores(str(path), held_out=1).records("train")
