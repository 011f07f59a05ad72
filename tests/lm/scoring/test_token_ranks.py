"""Places of tokens among the vocabulary, against sorting the logits of every path run alone."""

import numpy as np
import pytest
import torch

from lm.forests.forest import Forest, Path
from lm.scoring import states as heads
from lm.scoring.logprobs import forest_greedy, forest_ranks
from tests.lm.forests.forest_oracle import VOCAB, build

RNG = np.random.default_rng(3)
PROMPT = RNG.integers(3, VOCAB, 6).tolist()
PATHS = [Path([*PROMPT, *RNG.integers(3, VOCAB, n).tolist()], 6 - n % 2) for n in range(1, 14)]


def sorted_alone(model, path: Path) -> list[int]:
    with torch.no_grad():
        logits = model(torch.tensor([path.tokens])).logits[0]
    order = logits.argsort(-1, descending=True)
    return [
        order[place - 1].tolist().index(path.tokens[place]) + 1 for place in range(path.scored_from, len(path.tokens))
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "granite"])
@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("whole_logits", [False, True])
def test_ranks_are_places_in_the_sorted_logits(family, share_prefixes, whole_logits, monkeypatch):
    model, forest = build(family), Forest.from_paths(PATHS)
    expected = [rank for path in PATHS for rank in sorted_alone(model, path)]
    if whole_logits:
        monkeypatch.setattr("lm.scoring.trial.logprobs_in_head", heads.logprobs_of_logits)
    found = forest_ranks(model, forest, share_prefixes)
    assert len(found) > heads.SOFTMAX_STATES
    assert found.dtype == torch.int64
    assert not found.requires_grad
    assert found[forest.path_targets].tolist() == expected


def test_equal_logits_share_the_better_place():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    places = heads.ranks(logits, torch.zeros(4, dtype=torch.long), torch.arange(4))
    assert places.tolist() == [4, 1, 1, 3]


def test_what_is_not_a_number_is_the_likeliest_of_nothing():
    """A model that has diverged would have known everything."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0], [torch.nan] * 4, [1.0, torch.nan, 3.0, 2.0]])
    state, tokens = torch.arange(3).repeat_interleave(4), torch.arange(4).repeat(3)
    assert heads.ranks(logits, state, tokens).tolist() == [4, 1, 1, 3, *[4] * 4, 4, 4, 2, 3]
    assert heads.are_greedy(logits, state, tokens).tolist() == [0, 1, 0, 0, *[0] * 8]  # the first of equal ones


def test_greedy_tokens_are_those_that_a_model_writes():
    model = build("llama")
    with torch.no_grad():
        alone = [model(torch.tensor([path.tokens])).logits[0].argmax(-1) for path in PATHS]
    own = [[*path.tokens, *alone[number][len(path.tokens) - 1 :].tolist()] for number, path in enumerate(PATHS)]
    forest = Forest.from_paths([Path(tokens, len(tokens) - 2) for tokens in own])  # the last one is the model's own
    expected = [
        hit
        for path, tokens, greedy in zip(PATHS, own, alone, strict=True)
        for hit in (int(greedy[len(path.tokens) - 2]) == tokens[-2], True)
    ]
    assert forest_greedy(model, forest)[forest.path_targets].tolist() == expected
    assert not all(expected)


def test_a_forest_without_targets_has_no_ranks():
    assert forest_ranks(build("llama"), Forest.from_paths([Path([5, 6], 2)])).tolist() == []
    assert forest_greedy(build("llama"), Forest.from_paths([Path([5, 6], 2)])).tolist() == []
