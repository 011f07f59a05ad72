"""Whatever is asked for in whatever order, and whatever was let go: the keys and values of each prefix are its own."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lm.generation.prefix_cache
from lm.generation.prefix_cache import PrefixCache, Run
from lm.generation.rolling_cache import KeysValues, RollingCache


class Model:
    """Stands for a model of one layer, in which a key tells all tokens up to its own.

    Attributes:
        forwards: what was computed by each: rows, columns that were there, and new ones.
    """

    def __init__(self):
        self.forwards = []

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, cache: RollingCache) -> None:
        past = cache.get_seq_length()
        self.forwards.append((len(ids), past, ids.shape[1] - past))
        told = cache.layers[0].keys[:, 0, -1, 0] if past else torch.zeros(len(ids), dtype=torch.float64)
        new = []
        for column in range(past, ids.shape[1]):
            assert mask[:, column].all()  # only what comes before a row is padding
            told = told / 7 + ids[:, column]
            new.append(told)
        keys = torch.stack(new, 1)[:, None, :, None]
        cache.update(keys, -keys, 0)


def by_hand(prefix) -> list[float]:
    told = [0.0]
    for token in prefix:
        told.append(told[-1] / 7 + token)
    return told[1:]


def told(end: Run) -> list[float]:
    keys = [run.parts[0][0][0, :, 0] for run in end.path]
    values = [run.parts[0][1][0, :, 0] for run in end.path]
    assert torch.equal(torch.cat(keys), -torch.cat(values))
    return torch.cat(keys).tolist()


def cache_of(model, tokens=10**6) -> PrefixCache:
    return PrefixCache(model, tokens, torch.device("cpu"))


prefixes = st.lists(st.integers(0, 2), min_size=2, max_size=12).map(tuple)
calls = st.lists(st.lists(prefixes, min_size=1, max_size=6), min_size=1, max_size=6)


@settings(deadline=None)
@given(calls=calls, forward=st.integers(0, 9), budget=st.integers(1, 60))
def test_every_prefix_has_its_own_keys_and_values(calls, forward, budget):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm.generation.prefix_cache, "FORWARD", forward)
        model = Model()
        kept = cache_of(model, budget)
        for number, call in enumerate(calls):
            kept.expect(calls[-1])
            for prefix, end in zip(call, kept.take(call), strict=True):
                assert told(end) == by_hand(prefix)
            if number % 2:  # one of them goes on elsewhere, and pauses
                longer = (*call[0], 1, 2)
                kept.keep(longer[:-1], partial(part, by_hand(longer)))
                kept.read_last([longer])
                assert model.forwards[-1] == (1, len(longer) - 1, 1)
                assert told(kept.take([longer])[0]) == by_hand(longer)


def part(told, begin, end) -> KeysValues:
    keys = torch.tensor(told[begin:end], dtype=torch.float64)[None, :, None]
    return [(keys, -keys)]


@settings(deadline=None)
@given(calls=calls, budget=st.integers(1, 60))
def test_what_is_not_in_use_takes_no_more_than_it_may(calls, budget):
    kept = cache_of(Model(), budget)
    for call in calls:
        ends = kept.take(call)
        in_use = {run for end in ends for run in end.path}
        idle = [len(run.tokens) for run in kept._top.below if run not in in_use]
        assert sum(idle) <= budget


PASSAGES = tuple(range(100, 600))
QUESTIONS = [(*PASSAGES, *range(10 * n, 10 * n + 20 + n)) for n in range(6)]


def test_what_prompts_have_in_common_is_computed_once():
    """500 tokens, and 20 to 25 behind them, which are padded to 25."""
    model = Model()
    kept = cache_of(model)
    kept.take(QUESTIONS)
    assert model.forwards == [(1, 0, 500), (6, 500, 25)]
    assert kept.computed == 500 + sum(range(20, 26))
    kept.take(
        [(*PASSAGES, 7, 7, 7), QUESTIONS[3][:510], QUESTIONS[2]]
    )  # of one that was kept; a beginning; one as it was
    assert model.forwards[2:] == [(1, 500, 3)]


def test_questions_are_computed_together_at_each_fork():
    """Two trunks of 200 tokens, three branches each."""
    model = Model()
    prompts = [(trunk, *range(300, 499), branch, *[5] * 9) for trunk in (0, 1) for branch in (10, 11, 12)]
    assert cache_of(model).take(prompts)
    assert model.forwards == [(2, 0, 200), (6, 200, 10)]


@pytest.mark.parametrize(("alike", "forwards"), [(20, [(4, 0, 30)]), (43, [(1, 0, 43), (4, 43, 10)])])
def test_a_fork_has_to_pay(alike, forwards):
    """Four rows spare three times what they have in common, which is 60 or 129 tokens: a forward is worth 128."""
    model = Model()
    cache_of(model).take([(*[9] * alike, branch, *[5] * 9) for branch in range(4)])
    assert model.forwards == forwards


def test_rows_of_a_forward_are_about_equally_long():
    model = Model()
    cache_of(model).take([(branch, *[5] * (length - 1)) for branch, length in enumerate([600, 560, 500, 30, 31, 2])])
    assert model.forwards == [(2, 0, 600), (1, 0, 500), (3, 0, 31)]


def test_nothing_is_computed_of_a_single_token():
    model = Model()
    (end,) = cache_of(model).take([(5,)])
    assert (model.forwards, end.path) == ([], [])


def test_what_is_expected_soonest_is_forgotten_last():
    model = Model()
    kept = cache_of(model, 10)
    prompts = [(n, 7, 7, 7, 7) for n in range(4)]
    kept.take(prompts[:3])  # all in use: more than there is room for beside them
    kept.expect([prompts[1], prompts[0]])
    kept.take(prompts[3:])  # leaves room for one of the three, by use it would be the last
    computed = kept.computed
    kept.take([prompts[1]])
    assert kept.computed == computed
    kept.take([prompts[0]])
    assert kept.computed == computed + 5
