"""Records of BiGGen Bench are read by their official names, refused by field, and chosen by part."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from datamodules.records import read_records
from tests.shared_data import biggen_instances
from text.errors import DataFormatError, UserError
from text.judging.biggen import INSTANCES, BiggenRecord, Place, ScoreRecord, choose, what_is_missing

RUBRIC = {"criteria": "Is it kind?", **{f"score{n}_description": f"worth {n}" for n in range(1, 6)}}
GOOD = {
    "id": "safety_honesty_0",
    "capability": "safety",
    "task": "honesty",
    "instance_idx": 0,
    "system_prompt": "Be honest.",
    "input": "Are you?",
    "reference_answer": "I am.",
    "score_rubric": RUBRIC,
    "note": "kept",
}
PLACES = [Place(*place) for place, count in INSTANCES.items() for _ in range(count)]


def read(tmp_path, *records, kind=BiggenRecord):
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return [located.record for located in read_records(str(tmp_path / "b.jsonl"), kind)]


def test_official_names_become_ours(tmp_path):
    (record,) = read(tmp_path, GOOD)
    assert (record.prompt, record.system, record.rubric.criteria) == ("Are you?", "Be honest.", "Is it kind?")
    assert record.kept()["note"] == "kept"
    assert [message.role for message in record.messages()] == ["system", "user"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"capability": "savety", "id": "savety_honesty_0"}, "field 'capability': 'savety' is not known. Did you mean"),
        ({"id": "safety_honesty_1"}, "field 'id': 'safety_honesty_1' is not 'safety_honesty_0'"),
        ({"score_rubric": {k: v for k, v in RUBRIC.items() if "3" not in k}}, "field 'score_rubric': score3_descr"),
        ({"input": ""}, "field 'input': must not be empty"),
        ({"input": None}, "field 'input': missing"),
        ({"instance_idx": "0"}, "field 'instance_idx': should be a valid integer"),
        ({"reference_answer": " "}, "field 'reference_answer': must not be empty"),
    ],
)
def test_bad_records_are_refused_by_line_and_field(tmp_path, changes, complaint):
    with pytest.raises(DataFormatError) as caught:
        read(tmp_path, GOOD | {"id": "safety_honesty_2", "instance_idx": 2}, GOOD | changes)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{tmp_path}/b.jsonl:2: {complaint}")


def test_a_bench_of_ones_own_has_other_capabilities(tmp_path):
    own = GOOD | {"capability": "cooking", "id": "cooking_honesty_0"}
    with pytest.raises(DataFormatError, match=r"There are grounding, .* extra_capabilities"):
        read(tmp_path, own)
    kind = BiggenRecord.with_capabilities(["cooking"])
    assert [record.capability for record in read(tmp_path, own, GOOD, kind=kind)] == ["cooking", "safety"]


@pytest.mark.parametrize("score", [6, 0, [5, 6], "5", True])
def test_scores_beyond_the_scale_are_refused(tmp_path, score):
    with pytest.raises(DataFormatError, match=r"b.jsonl:1: field 'score'"):
        read(tmp_path, {"id": "a", "score": score}, kind=ScoreRecord)


def test_one_score_is_a_list_of_one(tmp_path):
    given = [4, None, [1, None, 5]]
    found = read(tmp_path, *({"id": str(n), "score": score} for n, score in enumerate(given)), kind=ScoreRecord)
    assert [record.score for record in found] == [[4], [None], [1, None, 5]]


def test_the_official_bench_has_the_official_sizes():
    sizes = {"all": 765, "english": 695, "multilingual": 70, "without_judge_tasks": 747}
    assert {name: len(choose(PLACES, name)) for name in sizes} == sizes
    assert len(choose(PLACES, "english+without_judge_tasks")) == 677
    assert len(INSTANCES) == 77
    counts = Counter(place.capability for place in PLACES)
    assert (counts["planning"], counts["refinement"], counts["safety"], counts["grounding"]) == (70, 76, 79, 100)


def test_a_stratified_draw_keeps_the_shares_of_tasks():
    places = [Place("c", "a")] * 6 + [Place("c", "b")] * 3 + [Place("d", "a")]
    chosen = choose(places, "stratified:5")  # shares 3, 1.5, 0.5: the sixth goes to one of the last two by lot
    counts = Counter(places[number] for number in chosen)
    assert counts[Place("c", "a")] == 3
    assert sorted((counts[Place("c", "b")], counts[Place("d", "a")])) in ([0, 2], [1, 1])
    assert chosen == sorted(chosen) == choose(places, "stratified:5")
    assert {tuple(choose(places, "stratified:5", seed)) for seed in range(20)} != {tuple(chosen)}
    thirds = Counter(PLACES[number] for number in choose(PLACES, "stratified:255"))
    assert all(count == 3 or (INSTANCES[place] < 10 and count == 2) or count == 4 for place, count in thirds.items())
    assert choose(PLACES, "stratified:765") == list(range(765))


@pytest.mark.parametrize(
    "subset", ["englisch", "stratified:0", "stratified:x", "stratified:766", "english+multilingual"]
)
def test_a_subset_that_cannot_be_is_refused(subset):
    with pytest.raises(UserError, match="subset"):
        choose(PLACES, subset)


def test_missing_instances_are_listed():
    ids = [f"{capability}_{task}_{n}" for (capability, task), count in INSTANCES.items() for n in range(count)]
    assert what_is_missing(ids, PLACES) == []
    assert what_is_missing(ids[:3] + ids[4:], PLACES[:3] + PLACES[4:]) == [ids[3]]
    few = [Place("safety", "safety_alignment")] * 8
    assert what_is_missing([], few)[-1] == "safety/safety_alignment: 8 of 9"
    assert what_is_missing(["x"], [Place("cooking", "soup")]) == []


def test_the_shared_half():
    places = [Place(one["capability"], one["task"]) for one in biggen_instances()]
    assert len(places) == 384
    assert len(set(places)) == 77
    sizes = {"english": 349, "multilingual": 35, "without_judge_tasks": 375}
    assert {name: len(choose(places, name)) for name in sizes} == sizes
