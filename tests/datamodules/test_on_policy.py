"""Prompts that a policy answers itself: what a batch holds, what goes along, and that none is beyond the model."""

from __future__ import annotations

import itertools
import json

import pytest

from datamodules import OnPolicyPrompts
from datamodules.loading import Position
from lm.forests.batches import PairBatch
from tests.conversation_files import first_batch, jsonl, pair, set_up, tiny
from text.errors import DataFormatError, UserError
from worlds import World

PROMPTS = [
    {"prompt": "the cat", "id": "a", "topic": "cats"},
    {"instruction": "the dog sat"},
    pair("the fox", " ran", " sat", id="c"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def read(folder, *records, **options):
    layout = {name: options.pop(name) for name in ("ranks", "rank", "accumulation") if name in options}
    file = jsonl(folder / "prompts.jsonl", *records)
    options = {"tokenizer": tiny(folder), "batch_size": len(records)} | options
    return set_up(OnPolicyPrompts(file, **options), **layout)


@pytest.mark.oracle("OnPolicyPrompts", "OnPolicyPrompts.train")
def test_a_batch_of_prompts_by_hand(tmp_path):
    data = read(tmp_path, *PROMPTS)
    batch = data.batch(data.table("train"), [2, 0])
    assert [data.tokenizer.decode(prompt) for prompt in batch.prompts] == ["the fox", "the cat"]
    assert (batch.rows, batch.ids) == ([2, 0], ["c", "a"])
    assert batch.records == [
        {"prompt": "the fox", "chosen": " ran", "rejected": " sat"},
        {"prompt": "the cat", "topic": "cats"},
    ]
    assert sorted(first_batch(data).rows) == [0, 1, 2]


class Asks(World):
    """Two questions, whose right answers are a number of this world."""

    def __init__(self, gold):
        self.gold = gold

    def records(self, split):
        return [{"prompt": "the cat", "gold": self.gold}, {"prompt": "the dog", "gold": self.gold + 1}]


def test_prompts_of_two_worlds_of_one_class_keep_their_own_records(tmp_path):
    data = set_up(OnPolicyPrompts([Asks(10), Asks(20)], tokenizer=tiny(tmp_path), batch_size=4))
    batch = data.batch(data.table("train"), range(4))
    assert [record["gold"] for record in batch.records] == [10, 11, 20, 21]
    assert batch.ids == ["Asks:1", "Asks:2", "Asks 2:1", "Asks 2:2"]


def test_prompts_of_one_line_keep_their_own_records(tmp_path):
    (tmp_path / "prompts.json").write_text(json.dumps([{"prompt": f"the cat {n}", "gold": n} for n in range(3)]))
    data = set_up(OnPolicyPrompts(str(tmp_path / "prompts.json"), tokenizer=tiny(tmp_path), batch_size=3))
    assert [record["gold"] for record in data.batch(data.table("train"), range(3)).records] == [0, 1, 2]


def test_pairs_are_measured_on(tmp_path):
    held_out = jsonl(tmp_path / "pairs.jsonl", pair("the dog", " sat", " ran"))
    [batch] = read(tmp_path, *PROMPTS, val=held_out).val_dataloader()
    assert isinstance(batch, PairBatch)
    assert len(batch.forest) == 2


@pytest.mark.parametrize(("ranks", "accumulation"), [(2, 1), (1, 2), (2, 2)])
def test_a_step_has_the_same_prompts_however_it_is_cut(tmp_path, ranks, accumulation):
    records = [{"prompt": f"the cat {n}"} for n in range(9)]

    def rows_of_steps(ranks=1, accumulation=1):
        cut = {"batch_size": 4, "ranks": ranks, "accumulation": accumulation}
        loaders = [read(tmp_path, *records, rank=rank, **cut).train_dataloader() for rank in range(ranks)]
        steps = [[] for _ in range(len(loaders[0]) // accumulation)]
        for n, loader in itertools.product(range(len(loaders[0])), loaders):
            steps[n // accumulation] += loader.batch_at(Position(n, n, n // accumulation)).rows
        return [sorted(rows) for rows in steps]

    assert rows_of_steps(ranks, accumulation) == (whole := rows_of_steps())
    assert len(whole) == 2


def test_a_prompt_leaves_room_for_an_answer(tmp_path):
    with pytest.raises(UserError, match="prompts of max_length tokens or more"):
        read(tmp_path, {"prompt": "the cat sat on the mat"}, max_length=3, max_prompt_length=None)
    with pytest.raises(DataFormatError, match=r"prompts.jsonl:1: field 'prompt'"):
        read(tmp_path, {"chosen": "yes", "rejected": "no"})
