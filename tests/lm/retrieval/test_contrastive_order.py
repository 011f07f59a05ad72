"""Siblings share a batch or never do; every epoch is whole, and the same whenever it is asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.retrieval.contrastive_order import SiblingBatches
from text.errors import UserError

TASKS = [task for task in "ab" for _ in range(36)]
GROUPS = [group for _ in "ab" for group in range(6) for _ in range(6)]


@pytest.mark.parametrize("siblings", [1, 2, 3])
def test_a_batch_holds_one_task_and_bundles_of_siblings(siblings):
    plan = SiblingBatches(TASKS, GROUPS, 6, siblings)
    assert len(plan) == 12
    epoch = plan.epoch(seed=1, epoch=0)
    assert sorted(np.concatenate(epoch)) == list(range(72))
    for batch in epoch:
        assert len({TASKS[i] for i in batch}) == 1
        assert sorted(np.unique([GROUPS[i] for i in batch], return_counts=True)[1]) == [siblings] * (6 // siblings)
        bundles = batch.reshape(-1, siblings)
        assert all(len({GROUPS[i] for i in bundle}) == 1 for bundle in bundles)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=12), siblings=st.integers(1, 3), seed=st.integers(0, 9))
def test_groups_of_any_size(sizes, siblings, seed):
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    try:
        plan = SiblingBatches([0] * len(groups), groups, 2 * siblings, siblings)
    except UserError:
        assert sum(size >= siblings for size in sizes) < 2
        return
    for number in range(3):
        epoch = plan.epoch(seed, number)
        assert len(epoch) == len(plan)
        used = np.concatenate(epoch)
        assert len(set(used)) == len(used)
        assert all(len({groups[i] for i in batch}) == 2 for batch in epoch)
        assert len(groups) - len(used) == plan.never + plan.by_turns
    assert plan.never == sum(size for size in sizes if size < siblings)
    assert bool(plan.told) is (plan.never + plan.by_turns > 0)


def test_what_is_left_out_is_counted_and_told():
    """Task a: three groups of 5, 3 and 1, of which the last fills no bundle; task b fills no batch at all."""
    plan = SiblingBatches("aaaaaaaaabb", [0] * 5 + [1] * 3 + [2] + [3] * 2, 4, 2)
    assert (len(plan), plan.never, plan.by_turns) == (1, 1 + 2, 4)
    assert plan.told == (
        "3 are never used, which are in groups of fewer than 2 or tasks that fill no batch; "
        "4 are left out of an epoch, in each others, as they fill no batch"
    )
    used = {int(place) for epoch in range(40) for batch in plan.epoch(0, epoch) for place in batch}
    assert used == set(range(8))  # all but those three, by turns
    assert SiblingBatches(TASKS, GROUPS, 6, 2).told == ""


def test_epochs_differ_and_repeat():
    plan = SiblingBatches(TASKS, GROUPS, 6, 2)
    again = SiblingBatches(TASKS, GROUPS, 6, 2)
    np.testing.assert_array_equal(plan.epoch(1, 3), again.epoch(1, 3))
    assert not np.array_equal(plan.epoch(1, 3), plan.epoch(1, 4))
    assert not np.array_equal(plan.epoch(1, 3), plan.epoch(2, 3))


def test_what_cannot_be_dealt_is_refused():
    with pytest.raises(UserError, match="batch_size 5 must be a multiple of siblings 2"):
        SiblingBatches(TASKS, GROUPS, 5, 2)
    with pytest.raises(UserError, match="no batch of 14 pairs can be filled"):
        SiblingBatches(TASKS, GROUPS, 14, 2)
