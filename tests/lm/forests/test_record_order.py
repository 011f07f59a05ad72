"""Orders and micro-batches: pure functions of their place, the same however a step is split, nothing lost."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lm.forests.record_order import CountedBatches, GroupedOrder, PackedBatches
from text.errors import UserError

GROUPS = st.lists(st.integers(0, 9), min_size=1, max_size=40)


def labels(groups):
    """From 0 on, as tables number them."""
    return np.unique(groups, return_inverse=True)[1]


def runs(values):
    return [values[0], *(b for a, b in pairwise(values) if a != b)]


@given(GROUPS, st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_holds_every_record_once_and_groups_side_by_side(groups, seed, epoch):
    order = GroupedOrder(labels(groups), seed)
    rows = order.epoch(epoch)
    assert sorted(rows) == list(range(len(groups)))
    met = runs([groups[row] for row in rows])
    assert len(met) == len(set(groups))
    np.testing.assert_array_equal(GroupedOrder(labels(groups), seed).epoch(epoch), rows)
    as_given = order.as_given()
    assert sorted(as_given) == list(range(len(groups)))
    assert runs([groups[row] for row in as_given]) == sorted(set(groups))


def test_orders_differ_by_seed_and_epoch():
    order = GroupedOrder(np.arange(50), 1)
    assert list(order.epoch(0)) != list(order.epoch(1))
    assert list(order.epoch(0)) != list(GroupedOrder(np.arange(50), 2).epoch(0))


def test_the_order_within_a_group_is_another_one_in_every_epoch():
    order = GroupedOrder(np.repeat(np.arange(5), 8), 0)
    orders = {tuple(row for row in order.epoch(epoch).tolist() if row < 8) for epoch in range(20)}
    assert len(orders) == 20
    assert all(sorted(rows) == list(range(8)) for rows in orders)
    assert len({rows[0] for rows in orders}) > 3


@pytest.mark.parametrize("size", [(2, 2), (4, 1), (1, 4), (1, 1)])
def test_a_step_does_not_depend_on_how_it_is_split(size):
    order = GroupedOrder(labels(np.arange(30) // 3), 0)
    whole = CountedBatches(order, 8)
    accumulation, world_size = size
    parts = [CountedBatches(order, 8, accumulation, rank, world_size) for rank in range(world_size)]
    for step in (0, 2, 3, 11):  # step 3 goes over the end of an epoch
        split = [part.rows(step, number) for number in range(accumulation) for part in parts]
        np.testing.assert_array_equal(np.concatenate(split), whole.rows(step, 0))
    assert len(parts[0]) == 3 * accumulation


@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 3))
def test_steps_follow_the_epochs_without_a_seam(n, batch_size, epochs):
    order = GroupedOrder(np.arange(n), 0)
    batches = CountedBatches(order, batch_size)
    met = np.concatenate([batches.rows(step, 0) for step in range(-(-n * epochs // batch_size))])[: n * epochs]
    np.testing.assert_array_equal(met, np.concatenate([order.epoch(epoch) for epoch in range(epochs)]))


def packed(groups, seed=0, most=20, least=1, layout=(1, 0, 1)):
    rng = np.random.default_rng(seed)
    prompts = labels(groups)
    of_prompt = rng.integers(1, 8, prompts.max() + 1)
    sizes = np.stack([rng.integers(1, 12, len(groups)), of_prompt[prompts]])
    return PackedBatches(GroupedOrder(prompts, seed), sizes, prompts, most, least, *layout), sizes, prompts


def cost(rows, sizes, prompts):
    """Tokens of a forest: every answer, and every prompt once."""
    return sizes[0, rows].sum() + sum({prompts[row]: sizes[1, row] for row in rows}.values())


@given(GROUPS, st.integers(0, 5), st.integers(1, 3))
def test_micro_batches_hold_what_the_budget_allows_and_nothing_is_lost(groups, seed, least):
    batches, sizes, prompts = packed(groups, seed, least=least)
    order = batches.order.epoch(0)
    parts = np.split(order, batches.cuts(0)[1:])
    np.testing.assert_array_equal(np.concatenate(parts), order)
    assert all(len(part) >= min(least, len(groups)) for part in parts)
    for part, after in pairwise(parts):
        assert cost(part, sizes, prompts) <= 20 or len(part) == least
        assert cost(np.append(part, after[0]), sizes, prompts) > 20  # the next record would not have fitted


@pytest.mark.parametrize("size", [(2, 2), (4, 1), (1, 4)])
def test_packed_steps_are_dealt_in_order(size):
    groups = np.arange(60) // 2
    accumulation, world_size = size
    parts = [packed(groups, layout=(accumulation, rank, world_size))[0] for rank in range(world_size)]
    whole = packed(groups)[0]
    dealt = [part.rows(step, number) for step in range(9) for number in range(accumulation) for part in parts]
    for number, rows in enumerate(dealt):
        np.testing.assert_array_equal(rows, whole.rows(number, 0))
    epochs = [np.concatenate([whole.rows(n, 0) for n in range(len(whole.cuts(0)))]), whole.order.epoch(0)]
    np.testing.assert_array_equal(*epochs)
    assert len(parts[0]) == len(whole) // 4 * accumulation
    far = packed(groups)[0].rows(40, 0)  # asked for without having gone there: a resumed run
    np.testing.assert_array_equal(far, whole.rows(40, 0))


@example([0, 0, 3, 4, 1, 1, 2], 4)
@given(GROUPS, st.integers(1, 4))
def test_shares_hold_everything_once_in_as_many_parts_on_every_rank(groups, world_size):
    if len(groups) < world_size:
        with pytest.raises(UserError, match="cannot be shared"):
            packed(groups, layout=(1, 0, world_size))[0].shares(np.arange(len(groups)))
        return
    ranks = [packed(groups, layout=(1, rank, world_size))[0] for rank in range(world_size)]
    dealt = [batches.shares(batches.order.as_given()) for batches in ranks]
    assert len({len(parts) for parts in dealt}) == 1
    assert sorted(np.concatenate([rows for parts in dealt for rows in parts])) == list(range(len(groups)))
    assert all(len(rows) for parts in dealt for rows in parts)
