"""Value messages: what is held out is never trained, tests hold what they promise, and good answers score 5."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import pytest

from worlds import ValueMessages, value_scores
from worlds.value_messages import TESTS

WORLD = ValueMessages(instructions=2000, test_records=300)


def values(record: dict) -> set[tuple[str, str]]:
    return {(value["dimension"], value["preference"]) for value in record["preference_set"]}


def pairs(record: dict) -> set[tuple]:
    return set(combinations(sorted(values(record)), 2))


def union(records: list[dict], what) -> set:
    return set().union(*map(what, records))


def score(record: dict, response: str) -> dict[str, float]:
    question = SimpleNamespace(instruction=f"{record['system']}\n{record['prompt']}")
    return {r["name"]: getattr(value_scores, r["name"])(question, response) for r in record["rubric"]}


def test_what_is_tested_as_unseen_is_never_trained():
    train = WORLD.records("train") + WORLD.records("val")
    trained, together = union(train, values), union(train, pairs)
    for record in WORLD.records("unseen_value"):
        (unseen,) = values(record) - trained
        assert [rubric["name"] for rubric in record["rubric"]] == [unseen[0]], "nothing else is scored"
    for record in WORLD.records("unseen_combination"):
        assert values(record) <= trained
        assert pairs(record) - together
    for test in ("iid", "own"):
        assert union(WORLD.records(test), values) <= trained
    developed = union(WORLD.records("val_unseen_value"), values) - trained
    assert developed
    assert not developed & union(WORLD.records("test"), values)


def test_every_marker_is_held_out_once_and_is_a_word_of_instructions():
    everything = {(d, f"m{i}") for d in ("opening", "closing", "joint") for i in range(12)}
    never = everything - union(WORLD.records("train"), values)
    assert sorted(name for _, name in never) == sorted(f"m{i}" for i in range(12))
    tested = union(WORLD.records("unseen_value"), values) & never
    assert len(tested) == 9
    said = {word for record in WORLD.records("train") for word in record["prompt"].split()}
    assert {f"m{i}" for i in range(12)} <= said


def test_beside_an_unseen_value_stands_only_what_every_arm_was_trained_on():
    """Otherwise an arm of few values would meet several new ones in a message, of which one is scored."""
    few = ValueMessages(instructions=2000, trained_markers=3)
    trained = union(few.records("train"), values)
    for test in ("unseen_value", "unseen_role", "val_unseen_value"):
        for record in WORLD.records(test):
            assert len(values(record) - trained) == 1
        assert few.records(test) == WORLD.records(test), "all arms are asked the same"
    served = {name for _, name in trained}
    unseen = union(WORLD.records("unseen_role"), values) - trained
    assert {name for _, name in unseen} == served - {"forward", "reverse"}, "in another role each of them is trained"
    assert unseen < union(WORLD.records("unseen_value"), values)


def test_arms_have_the_same_instructions_and_messages_of_the_same_lengths():
    few = ValueMessages(instructions=2000, trained_markers=3).records("train")
    many = WORLD.records("train")
    assert [record["prompt"] for record in few] == [record["prompt"] for record in many]
    assert len({name for _, name in union(few, values)} - {"forward", "reverse"}) == 3
    lengths = [[len(values(record)) for record in records] for records in (few, many)]
    for found in lengths:
        assert all(abs(found.count(n) / len(found) - 1 / 3) < 0.03 for n in (1, 2, 3))  # 4 standard errors of 6000
    assert len({record["system"] for record in many}) > 10 * len({record["system"] for record in few})


def test_variants_of_an_instruction_differ_and_do_not_name_its_words():
    records = WORLD.records("train")
    for first, second, third in zip(records[::3], records[1::3], records[2::3], strict=True):
        assert len({first["system"], second["system"], third["system"]}) == 3
        assert first["instruction_id"] == third["instruction_id"]
        assert first["prompt"] == third["prompt"]
    for record in records:
        assert not {name for _, name in values(record)} & set(record["prompt"].split())


def test_a_seed_draws_everything_but_what_is_held_out():
    other = ValueMessages(instructions=2000, seed=1)
    assert other.records("train") != WORLD.records("train")
    assert other.records("iid") != WORLD.records("iid")
    assert union(other.records("train"), values) == union(WORLD.records("train"), values)
    assert WORLD.records("test") == ValueMessages(instructions=2000).records("test")


def test_the_golden_answer_scores_five_on_everything():
    for record in WORLD.records("test") + WORLD.records("dev"):
        assert set(score(record, record["reference_answer"]).values()) == {5.0}
    counts = {test: sum(r["source"] == test for r in WORLD.records("test")) for test in TESTS}
    assert counts == dict.fromkeys(TESTS, 300)


ASKED = {"system": "please BEGIN m9 ; BETWEEN m1 ; END m4 ; ORDER reverse", "prompt": "w3 w7 m2 ="}


@pytest.mark.parametrize(
    ("response", "content", "opening", "closing", "joint"),
    [
        ("m9 m2 m1 w7 m1 w3 m4", 5, 5, 5, 5),
        ("m9 w3 m1 w7 m1 m2 m4", 1 + 4 / 3, 5, 5, 5),  # forward: only the middle word is in its place
        ("m5 m2 w7 m1 w3 m4", 5, 1, 5, 3),  # another marker is no word; one gap of two is empty
        ("m9 m2 m1 w7 m1 w3 w3 m4", 1 + 4 * 2 / 3, 5, 5, 5),  # a surplus word
        ("m2 m1 m1 w7", 1 + 4 * 2 / 3, 1, 1, 1),
        ("", 1, 1, 1, 1),
        ("m9", 1, 5, 1, 1),
    ],
)
def test_scores_worked_by_hand(response, content, opening, closing, joint):
    rubric = [{"name": name} for name in ("content", "opening", "closing", "joint")]
    expected = {"content": content, "opening": opening, "closing": closing, "joint": joint}
    assert score(ASKED | {"rubric": rubric}, response) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"markers": 10}, "multiple of 12"),
        ({"trained_markers": 2}, "between 3 and 12"),
        ({"instructions": 0}, "least 1"),
    ],
)
def test_worlds_that_cannot_be(arguments, says):
    with pytest.raises(ValueError, match=says):
        ValueMessages(**arguments).records("train")
    with pytest.raises(ValueError, match="not 'tests'"):
        WORLD.records("tests")
