"""The nine cells of the official decision, verdicts that cannot be read, and more than two candidates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.sure.selection import choose, preference, ranks, validities

A, TIE, B = (1, 2), (1, 1), (2, 1)  # slots in both orders
T, F = True, False
CELLS = [
    *((A, verdicts, 0) for verdicts in [(T, T), (F, F), (T, F), (F, T)]),
    *((TIE, verdicts, place) for verdicts, place in [((T, T), 0), ((F, F), 0), ((T, F), 0), ((F, T), 1)]),
    *((B, verdicts, place) for verdicts, place in [((T, T), 1), ((F, F), 1), ((T, F), 0), ((F, T), 1)]),
    *((slots, (None, T), place) for slots, place in [(A, 0), (TIE, 0), (B, 1)]),  # the ranking alone
    *((slots, (F, None), place) for slots, place in [(A, 0), (TIE, 0), (B, 1)]),
]


def official(slots, verdicts, selection="official"):
    return choose(validities(verdicts), ranks(2, {(0, 1): preference(*slots)}), selection)


@pytest.mark.parametrize(("slots", "verdicts", "place"), CELLS)
def test_the_official_table(slots, verdicts, place):
    assert official(slots, verdicts).place == place


def average_with_one_hot(slots, verdicts) -> int:
    """The official code's arithmetic for two candidates, written down independently."""
    ranking = {A: (1.0, 0.0), B: (0.0, 1.0)}.get(slots, (0.5, 0.5))
    if None in verdicts or verdicts[0] == verdicts[1]:
        return int(ranking[1] > ranking[0])
    hot = [float(verdict) for verdict in verdicts]
    mean = [(r + h) / 2 for r, h in zip(ranking, hot, strict=True)]
    return int(mean[1] > mean[0])


@given(st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 2])), st.tuples(*[st.sampled_from([T, F, None])] * 2))
def test_it_is_the_official_arithmetic(slots, verdicts):
    assert official(slots, verdicts).place == average_with_one_hot(slots, verdicts)


def test_what_decided_is_told():
    decided = [official(*cell).by for cell in [(A, (T, T)), (A, (T, F)), (TIE, (F, T)), (A, (F, T)), (TIE, (T, T))]]
    assert decided == ["rank", "both", "valid", "tie", "tie"]


def test_three_candidates():
    ranked = ranks(3, {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0})
    assert ranked == [1.5, 0.0, 1.5]
    assert choose([1, 0, 1], ranked) == (0, "tie", [2.5, 0.0, 2.5], 0.0)
    assert choose([0, 0, 1], ranked)[:2] == (2, "both")


@pytest.mark.parametrize(("slots", "told"), [((1, None), 0.75), ((None, 1), 0.25), ((None, None), 0.5), ((2, 2), 0.5)])
def test_one_order_alone_counts_less(slots, told):
    assert preference(*slots) == told
    if None in slots and told != 0.5:
        assert preference(*slots, partial=1.0) == round(told)


def test_either_verdict_alone():
    assert official(B, (T, F), "valid_only").place == 0
    assert official(B, (T, F), "rank_only").place == 1
    assert official(A, (F, T), "valid_only")[:2] == (1, "valid")
    assert choose([0.5, -1.0], [-3.0, 3.0], "soft") == (1, "rank", [-2.5, 2.0], 4.5)
