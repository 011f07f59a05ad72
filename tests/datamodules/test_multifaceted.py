"""Variants of instructions as data: what is kept, what is held out, and which answer a pair rejects."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from datamodules.multifaceted import Multifaceted, MultifacetedAnswers, MultifacetedPairs
from datamodules.multifaceted_bench import MultifacetedPrompts
from lm.backbones.encoder import WordTokenizer
from lm.forests.batches import PairBatch
from lm.tokens.tokenizer import BPETokenizer
from text.errors import DataFormatError, UserError
from worlds import ValueMessages

WORDS = WordTokenizer(eos_token="[END]")
FIVE = {str(score): f"worth {score}" for score in range(1, 6)}


def value(dimension: str, name: str) -> dict:
    return {"dimension": dimension, "subdimension": f"{dimension} {name[0]}", "preference": name}


def record(instruction: int, variant: int, **more) -> dict:
    """The answer names both, so that tokens tell whose it is."""
    answer = {"system": f"s{variant}", "prompt": f"p{instruction}", "output": f"a{instruction} b{variant}"}
    return answer | {"id": f"{instruction}.{variant}", "instruction_id": f"i{instruction}"} | more


def written(tmp_path, records, name="train.jsonl") -> str:
    (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(tmp_path / name)


def read(data) -> dict[str, list[str]]:
    """Ids by split."""
    data.prepare_data()
    data.setup("fit")
    tables = {split: data.table(split) for split in ("train", "val", "test")}
    return {split: table.ids for split, table in tables.items() if table is not None}


def decoded(data, batch: PairBatch) -> list[str]:
    forest = batch.forest
    parts = [forest.targets[forest.path_targets[a:b]] for a, b in pairwise(forest.path_offsets)]
    return [data.tokenizer.decode(part, skip_special_tokens=True) for part in parts]


def test_variants_are_chosen_for_training_alone(tmp_path):
    train = written(tmp_path, [record(i, v) for i in range(20) for v in range(3)])
    val = written(tmp_path, [record(i, v) for i in range(20, 22) for v in range(3)], "val.jsonl")
    found = read(Multifaceted(train, val=val, tokenizer=WORDS, variants_per_instruction=1))
    assert [name.split(".")[0] for name in found["train"]] == [str(i) for i in range(20)]
    assert len({name.split(".")[1] for name in found["train"]}) == 3
    assert len(found["val"]) == 6
    assert found["train"] == read(Multifaceted(train, tokenizer=WORDS, variants_per_instruction=1))["train"]
    other = Multifaceted(train, tokenizer=WORDS, variants_per_instruction=1, split_seed=1)
    assert read(other)["train"] != found["train"]


@pytest.mark.parametrize("by", ["instruction", "value"])
def test_what_is_held_out_serves_the_other_splits(tmp_path, by):
    values = [[value("Style", f"v{i}")] for i in range(10)]
    records = [record(i, v, preference_set=values[(i + v) % 10]) for i in range(20) for v in range(3)]
    data = Multifaceted(written(tmp_path, records), tokenizer=WORDS, split_by=by, holdout_fraction=0.2)
    found = read(data)
    assert found["val"] == found["test"]
    assert len(found["val"]) >= 12
    kinds = {one["id"]: one["instruction_id"] if by == "instruction" else str(one["preference_set"]) for one in records}
    assert not {kinds[name] for name in found["train"]} & {kinds[name] for name in found["val"]}
    assert data.dropped["held out"] == len(found["val"])
    assert data.dropped["val: trained on"] == len(found["train"])


def test_a_split_of_ones_own_is_left_alone(tmp_path):
    train = written(tmp_path, [record(i, v) for i in range(20) for v in range(3)])
    val = written(tmp_path, [record(30, 0)], "val.jsonl")
    found = read(Multifaceted(train, val=val, tokenizer=WORDS, split_by="instruction"))
    assert found["val"] == ["30.0"]
    assert len(found["test"]) == 6


def test_parts_of_a_world_come_from_what_it_trains_on():
    world = ValueMessages(instructions=100, test_records=30)
    assert len(read(Multifaceted(world, tokenizer=WORDS))["val"]) == 30
    found = read(Multifaceted(world, tokenizer=WORDS, split_by="instruction"))
    assert all(name.startswith("train.") for name in found["val"])
    assert (len(found["train"]), len(found["val"])) == (270, 30)


def test_a_message_is_made_of_values_if_there_is_none(tmp_path):
    records = [record(1, 0, preference_set=[value("Style", "Brief")]), record(1, 1, preference_set=[])]
    del records[0]["system"]
    data = Multifaceted(written(tmp_path, records), tokenizer=WORDS, opening="So:")
    read(data)
    shown = [data.tokenizer.decode(data.table("train").answer(row)[0]) for row in range(2)]
    assert shown == ["So: Style: Brief. p1", "s1 p1"]


def test_pairs_reject_the_answer_to_the_next_message(tmp_path):
    records = [record(i, v) for i in range(2) for v in range(3)] + [record(9, 0)]
    data = MultifacetedPairs(written(tmp_path, records), tokenizer=WORDS)
    assert read(data)["train"] == [one["id"] for one in records[:-1]]
    assert data.dropped == {"the only variant of their instruction": 1}
    sides = decoded(data, data.table("train").batch(range(6)))
    assert sides[::2] == [one["output"] for one in records[:-1]]
    assert sides[1::2] == ["a0 b1", "a0 b2", "a0 b0", "a1 b1", "a1 b2", "a1 b0"]


def test_the_answers_of_a_pair_may_stand_by_themselves(tmp_path):
    data = MultifacetedAnswers(written(tmp_path, [record(0, v) for v in range(2)]), tokenizer=WORDS)
    read(data)
    table = data.table("train")
    assert table.labels.tolist() == [True, False] * 2
    said = [data.tokenizer.decode(table.answer(row)[1], skip_special_tokens=True) for row in range(4)]
    assert said == ["a0 b0", "a0 b1", "a0 b1", "a0 b0"]


def test_a_pair_rejects_nothing_that_is_held_out(tmp_path):
    records = [record(i, v, preference_set=[value("Style", f"{v // 2}")]) for i in range(20) for v in range(4)]
    letters = BPETokenizer()  # to a tokenizer of the training words, all held-out answers would be the same
    data = MultifacetedPairs(written(tmp_path, records), tokenizer=letters, split_by="value", holdout_fraction=0.3)
    found = read(data)
    unseen = {name.split(".")[1] for name in found["val"]}
    assert unseen in ({"0", "1"}, {"2", "3"})
    sides = decoded(data, data.table("train").batch(range(len(found["train"]))))
    assert len(sides) == 80
    assert not {side[-1] for side in sides} & unseen


def test_answers_that_are_the_same_make_no_pair(tmp_path):
    records = [record(i, v, output="same") if i == 1 else record(i, v) for i in range(3) for v in range(2)]
    with pytest.warns(UserWarning, match="1 instructions have the same answer"), pytest.raises(DataFormatError):
        read(MultifacetedPairs(written(tmp_path, records), tokenizer=WORDS))
    with pytest.warns(UserWarning, match="1 instructions have the same answer"):
        found = read(MultifacetedPairs(written(tmp_path, records), tokenizer=WORDS, on_identical="drop"))
    assert found["train"] == ["0.0", "0.1", "2.0", "2.1"]


# --- the bench --------------------------------------------------------------------------------------------------------


def instances(tmp_path) -> str:
    rubric = [{"criteria": "Is it kind?", "score_descriptions": FIVE}]
    return written(tmp_path, [{"id": f"q{n}", "system": "s", "prompt": f"p{n}", "rubric": rubric} for n in range(3)])


def test_instances_with_answers_on_record(tmp_path):
    draws = [{"id": f"q{n}", "draw": d, "response": f"r{n}{d}"} for d in (1, 0) for n in range(4)]
    data = MultifacetedPrompts(instances(tmp_path), responses=written(tmp_path, draws, "responses.jsonl"))
    data.setup("test")
    assert data.recorded == [["r00", "r01"], ["r10", "r11"], ["r20", "r21"]]
    assert [row for batch in data.test_dataloader() for row in batch.rows] == [0, 1, 2]
    assert data.instances[1].record.rubric[0].criteria == "Is it kind?"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            [{"id": "q0", "response": "r"}, {"id": "q1", "response": "r"}],
            "no response to 1 of 3 instances, such as 'q2'",
        ),
        ([{"id": "q0"}], r"responses\.jsonl:1: field 'response': missing"),
        (["text"], r"responses\.jsonl:1"),
    ],
)
def test_records_that_do_not_fit(tmp_path, lines, says):
    data = MultifacetedPrompts(instances(tmp_path), responses=written(tmp_path, lines, "responses.jsonl"))
    with pytest.raises(UserError, match=says):
        data.setup("test")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        MultifacetedPrompts(instances(tmp_path), responses=str(tmp_path / "nowhere.jsonl")).setup("test")


def test_an_empty_answer_is_an_answer(tmp_path):
    lines = [{"id": f"q{n}", "response": None if n else ""} for n in range(3)]
    data = MultifacetedPrompts(instances(tmp_path), responses=written(tmp_path, lines, "responses.jsonl"))
    data.setup("test")
    assert data.recorded == [[""], [""], [""]]
