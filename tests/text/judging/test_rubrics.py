import json

import pytest
from pydantic import BaseModel, ConfigDict

from datamodules.records import read_records
from text.errors import DataFormatError
from text.judging.rubrics import Rubric

FIVE = {str(score): f"worth {score}" for score in range(1, 6)}


class Judged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    rubric: list[Rubric]


def read(tmp_path, *records):
    file = tmp_path / "bench.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [located.record for located in read_records(str(file), Judged)]


@pytest.mark.parametrize(
    "spelling",
    [
        {"criteria": "Is it kind?", "score_descriptions": FIVE},
        {"criteria": "Is it kind?", "score_descriptions": {int(score): text for score, text in FIVE.items()}},
        {"criteria": "Is it kind?", **{f"score{score}_description": text for score, text in FIVE.items()}},
        {"orig_criteria": "Is it kind?", **{f"orig_score{score}_description": text for score, text in FIVE.items()}},
    ],
)
def test_every_published_spelling_is_the_same_rubric(spelling):
    rubric = Rubric.model_validate(spelling)
    assert rubric == Rubric(criteria="Is it kind?", score_descriptions=FIVE)
    assert rubric.name == "Is it kind?"


def test_a_rubric_may_have_a_name_and_notes():
    rubric = Rubric.model_validate({"criteria": "c", "score_descriptions": FIVE, "name": "kindness", "note": "draft"})
    assert rubric.name == "kindness"


def test_says_where_a_description_is_missing(tmp_path):
    good = {"criteria": "c", "score_descriptions": FIVE}
    bad = {"criteria": "c", "score_descriptions": {score: text for score, text in FIVE.items() if score != "4"}}
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, {"rubric": [good]}, {"rubric": [good, good, bad]})
    place = r"bench.jsonl:2: field 'rubric': [2].score_descriptions: "
    assert caught.value.problems == [f'{tmp_path}/{place}key "4" missing (need "1".."5")']


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"score_descriptions": {**FIVE, "6": "more"}}, 'unknown key "6"'),
        ({"score_descriptions": {**FIVE, "3": " "}}, "[0].score_descriptions.3: must not be empty"),
        ({"score_descriptions": "five of them"}, "should be an object"),
        ({"criteria": ""}, "[0].criteria: must not be empty"),
        ({"score1_description": "twice"}, "give score_descriptions or score1_description"),
    ],
)
def test_refuses_what_is_no_rubric(tmp_path, changes, complaint):
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, {"rubric": [{"criteria": "c", "score_descriptions": FIVE} | changes]})
    assert complaint in str(caught.value)
