"""Batches of pairs, labelled answers and prompts: how many they are, and that all of them moves."""

import torch

from lm.forests.batches import LabelledBatch, PairBatch, PromptBatch
from lm.forests.forest import Forest, Path

FOREST = Forest.from_paths([Path([1, 2], 1), Path([1, 3], 1)])


def test_pairs_move_as_a_whole():
    batch = PairBatch(FOREST, torch.tensor([7]), torch.ones(1), torch.zeros(1), ["a"], torch.tensor([-1.0, -2.0]))
    moved = batch.to("meta")
    tensors = (moved.forest.input_ids, moved.rows, moved.weights, moved.margins, moved.references)
    assert all(part.is_meta for part in tensors)
    assert (len(batch), len(moved), moved.ids) == (1, 1, ["a"])
    assert PairBatch(FOREST, batch.rows, batch.weights, batch.margins, ["a"]).to("meta").references is None


def test_labelled_answers_move_as_a_whole():
    batch = LabelledBatch(FOREST, torch.tensor([True, False]), torch.arange(2), torch.ones(2), ["a", "b"])
    moved = batch.to("meta")
    assert all(part.is_meta for part in (moved.forest.targets, moved.labels, moved.rows, moved.weights))
    assert (len(batch), len(moved), moved.ids) == (2, 2, ["a", "b"])


def test_prompts_stay_where_they_are():
    batch = PromptBatch([[1], [2, 3]], [0, 1], ["a", "b"], [{}, {}])
    assert batch.to("meta") is batch
    assert len(batch) == 2


def test_a_forest_has_as_many_examples_as_paths():
    assert (len(FOREST), len(Forest.from_paths([]))) == (2, 0)
