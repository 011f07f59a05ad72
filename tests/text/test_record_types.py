"""Every rule of a knowledge record, and the order of its probes."""

import pytest
from pydantic import ValidationError

from text.records import KnowledgeRecord, Located, TextRecord

PAIR = {"mem_input": ["a b", "c"], "mem_target": ["x", "y z"]}

FOUR_FOR_FIVE = "4 items but 'gen_input' has 5"
UNTRIMMED = "must not begin or end with white space"
NO_SCENARIO = "Input should be 'duplication', 'paraphrase', 'once' or 'control'"


def complaints(**fields):
    with pytest.raises(ValidationError) as caught:
        KnowledgeRecord.model_validate(fields)
    return {detail["loc"]: detail["msg"] for detail in caught.value.errors()}


def test_probes_come_in_one_list_in_a_fixed_order():
    record = KnowledgeRecord.model_validate(
        {
            "train_context": "t",
            "hard_gen_input": ["h"],
            "hard_gen_target": ["1"],
            **PAIR,
            "gen_input": ["g"],
            "gen_target": ["2"],
            "probes": [{"type": "negation", "input": "n", "target": "3"}],
        }
    )
    assert [(p.type, p.input, p.target) for p in record.all_probes()] == [
        ("mem", "a b", "x"),
        ("mem", "c", "y z"),
        ("gen", "g", "2"),
        ("hard_gen", "h", "1"),
        ("negation", "n", "3"),
    ]


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        (PAIR, ("train_context",), "Field required"),
        ({"train_context": " \n", **PAIR}, ("train_context",), "must not be empty"),
        ({"train_context": 3, **PAIR}, ("train_context",), "Input should be a valid string"),
        ({"train_context": "t", **PAIR, "paraphrases": ["p", ""]}, ("paraphrases", 1), "must not be empty"),
        ({"train_context": "t", **PAIR, "paraphrases": "p"}, ("paraphrases",), "Input should be a valid list"),
        ({"train_context": "t", **PAIR, "mem_target": ["x"]}, ("mem_target",), "1 items but 'mem_input' has 2"),
        ({"train_context": "t", "gen_input": ["x"] * 5, "gen_target": ["y"] * 4}, ("gen_target",), FOUR_FOR_FIVE),
        ({"train_context": "t", "hard_gen_input": ["x"]}, ("hard_gen_target",), "0 items but 'hard_gen_input' has 1"),
        ({"train_context": "t", "gen_target": ["x"]}, ("gen_target",), "1 items but 'gen_input' has 0"),
        ({"train_context": "t", **PAIR, "mem_target": ["x", ""]}, ("mem_target", 1), "must not be empty"),
        ({"train_context": "t", **PAIR, "mem_input": ["", "c"]}, ("mem_input", 0), "must not be empty"),
        ({"train_context": "t", **PAIR, "mem_target": [" x", "y"]}, ("mem_target", 0), UNTRIMMED),
        ({"train_context": "t", **PAIR, "scenario": "twice"}, ("scenario",), NO_SCENARIO),
        ({"train_context": "t", **PAIR, "official_pool": 1}, ("official_pool",), "Input should be a valid string"),
        ({"train_context": "t", **PAIR, "pool": "once"}, ("pool",), "Extra inputs are not permitted"),
        ({"train_context": "t", "probes": [{"type": "a", "input": "b"}]}, ("probes", 0, "target"), "Field required"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named(fields, place, message):
    assert complaints(**fields)[place] == message


def test_a_record_needs_a_probe_and_is_told_once():
    assert complaints(train_context="t") == {
        ("probes",): "no probe: give 'probes', or pairs such as 'mem_input', 'mem_target'"
    }
    assert list(complaints(train_context="t", mem_input=[1], mem_target=["x"])) == [("mem_input", 0)]


@pytest.mark.parametrize("bad", [True, 1.0, ["1"]])
def test_ids_are_numbers_or_strings(bad):
    assert any(place[0] == "id" for place in complaints(id=bad, train_context="t", **PAIR))


def test_a_record_without_an_id_is_known_by_its_place():
    record = KnowledgeRecord.model_validate({"train_context": "t", **PAIR})
    assert Located(record, "f:4", 3).name == "3"
    assert Located(record.model_copy(update={"id": 0}), "f:4", 3).name == "0"
    assert Located(record.model_copy(update={"id": "k"}), "f:4", 3).name == "k"


def test_documents_may_carry_metadata():
    assert TextRecord.model_validate({"text": "t", "url": "u"}).text == "t"
    with pytest.raises(ValidationError):
        TextRecord.model_validate({"text": None})
