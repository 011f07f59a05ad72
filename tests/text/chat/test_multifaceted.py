"""Values, the messages that state them, and records of the Multifaceted Collection and Bench."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from datamodules.records import read_records
from tests.text.chat.test_holdouts import made_up, published
from text.chat.chat_records import InstructionRecord, Preference
from text.chat.multifaceted import (
    BenchRecord,
    Hierarchy,
    Variant,
    check_variants,
    group_of,
    next_variants,
    system_message,
)
from text.errors import DataFormatError, UserError

FIVE = {str(score): f"worth {score}" for score in range(1, 6)}
ASKED = {"prompt": "Why?", "rubric": [{"criteria": "Is it kind?", "score_descriptions": FIVE}]}


def read(tmp_path, model, *records):
    file = tmp_path / "bench.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_records(str(file), model)


# --- values -----------------------------------------------------------------------------------------------------------


def test_the_published_values_are_a_hierarchy():
    hierarchy = Hierarchy.of(published())
    assert len(hierarchy) == 102
    assert len(hierarchy.branches) == 4
    assert sum(map(len, hierarchy.branches.values())) == 20
    assert sum(len(hierarchy.values(dimension)) for dimension in hierarchy.branches) == 102


def test_a_preference_set_has_one_value_of_each_dimension():
    hierarchy = Hierarchy.of(made_up())
    for name in ("a", "b", "c"):
        chosen = hierarchy.preference_set(0, name)
        assert [value.dimension for value in chosen] == ["D0", "D1", "D2", "D3"]
        assert chosen == hierarchy.preference_set(0, name)
    assert hierarchy.preference_set(0, "a") != hierarchy.preference_set(0, "b")
    assert hierarchy.preference_set(0, "a") != hierarchy.preference_set(1, "a")
    drawn = Counter(value.subdimension for n in range(2000) for value in hierarchy.preference_set(0, str(n))[:1])
    assert all(abs(count - 400) < 80 for count in drawn.values())  # of 5 branches; 4.5 standard deviations
    assert len(drawn) == 5


def test_a_set_in_words():
    brief = Preference(dimension="Style", subdimension="Conciseness", preference="Brief")
    safe = Preference(dimension="Harm", subdimension="Safety", preference="Safe", description="Warns of dangers.")
    assert system_message([brief, safe], "Be so:") == "Be so:\nStyle: Brief.\nHarm: Warns of dangers."
    assert system_message([brief], "") == "Style: Brief."


def test_a_hierarchy_that_is_none():
    with pytest.raises(UserError, match="needs some"):
        Hierarchy.of([])
    twice = [Preference(dimension=d, subdimension="Depth", preference="p") for d in ("Style", "Harm")]
    with pytest.raises(UserError, match="'Depth' belongs to two dimensions"):
        Hierarchy.of(twice)


# --- records ----------------------------------------------------------------------------------------------------------


def test_instances_are_read_in_all_spellings(tmp_path):
    official = {"system": "S", "prompt": "U", "reference_answer": "A", "source": "koala"}
    rubric = ASKED["rubric"][0]
    spelled = {"criteria": "Is it kind?", **{f"score{n}_description": text for n, text in FIVE.items()}}
    found = read(
        tmp_path,
        BenchRecord,
        official | {"rubric": [rubric, spelled]},
        {"system_prompt": "S", "user_prompt": "U", "rubrics": [rubric], "instruction_id": "i1"},
        {"instruction": "U", "rubric": [rubric]},
    )
    records = [located.record for located in found]
    assert [record.system for record in records] == ["S", "S", None]
    assert [record.prompt for record in records] == ["U"] * 3
    assert records[0].rubric[0] == records[0].rubric[1]
    assert group_of(records[1]) == "i1"
    assert group_of(records[0]) == group_of(records[2]) != group_of(BenchRecord(**ASKED))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rubric": []}, "field 'rubric': "),
        ({"rubric": None}, "field 'rubric': missing"),
        (
            {"rubric": [ASKED["rubric"][0], {"criteria": "c", "score_descriptions": {k: FIVE[k] for k in "1235"}}]},
            '[1].score_descriptions: key "4" missing (need "1".."5")',
        ),
        ({"rubrics": ASKED["rubric"]}, "field 'rubrics': given, and 'rubric' too"),
        ({"reference_answer": " "}, "field 'reference_answer': must not be empty"),
        ({"prompt": "U", "instruction": "U"}, "one thing, one name"),
    ],
)
def test_instances_that_are_refused(tmp_path, change, says):
    with pytest.raises(DataFormatError) as error:
        read(tmp_path, BenchRecord, ASKED, ASKED | change)
    assert says in str(error.value)
    assert "bench.jsonl:2" in str(error.value)


# --- variants ---------------------------------------------------------------------------------------------------------


def variants(tmp_path, *records) -> list[Variant]:
    return [Variant.of(located) for located in read(tmp_path, InstructionRecord, *records)]


def test_variants_are_found_by_their_instruction(tmp_path):
    found = variants(
        tmp_path,
        {"prompt": "U", "system": "a", "output": "1"},
        {"prompt": "V", "output": "2"},
        {"prompt": "U", "system": "b", "output": "3"},
        {"prompt": "U", "system": "c", "output": "4"},
    )
    assert [variant.output for variant in found] == ["1", "2", "3", "4"]
    assert next_variants([variant.group for variant in found]) == [2, None, 3, 0]
    assert check_variants(found) == []


def test_what_is_odd_about_variants_is_counted_or_refused(tmp_path):
    records = [{"instruction_id": f"i{n // 2}", "prompt": "U", "system": str(n), "output": str(n)} for n in range(200)]
    records[3]["output"] = records[2]["output"]  # one of 100 instructions answers alike
    assert check_variants(variants(tmp_path, *records)) == [
        "1 instructions have the same answer under all their messages: nothing to learn from those"
    ]
    for twice in (10, 20):
        records[twice]["system"] = records[twice + 1]["system"]
    assert check_variants(variants(tmp_path, *records))[0] == (  # 2 of 200 are not more than 1 %
        "2 records repeat the instruction and the message of another"
    )
    records[30]["system"] = records[31]["system"]
    with pytest.raises(DataFormatError, match=r"bench.jsonl:32: field 'system': the same .* as .*bench.jsonl:31"):
        check_variants(variants(tmp_path, *records))
