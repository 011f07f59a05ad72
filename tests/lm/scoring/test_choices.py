"""Choices are as likely as the model says token by token, however many they are and whatever they share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm.scoring.choices import choice_logprobs
from lm.scoring.logprobs import forest_logprobs
from lm.scoring.model_scores import ModelScores
from tests.stand_ins import scratch, tiny_tokenizer
from text.errors import UserError

PROMPTS = [[5, 6, 7], [5, 6], [9]]
CHOICES = [[[1, 2], [1, 3, 4]], [[2]], [[3], [2, 2], [4]]]


def model(seed=0):
    torch.manual_seed(seed)
    return scratch(initializer_range=0.3).build(tiny_tokenizer()).double().eval()


def by_token(forest):
    """A model whose next token is k with probability 2^-(k + 1), whatever came before."""
    return -(forest.targets.double() + 1) * math.log(2)


def test_sums_means_shares_and_mass_by_hand():
    """Of 1/4 * 1/8 and 1/16: a third and two thirds of 3/32."""
    found = choice_logprobs(by_token, [[7]], [[1, 2], [3]])
    torch.testing.assert_close(found.sums.exp(), torch.tensor([[1 / 32, 1 / 16]]).double())
    torch.testing.assert_close(found.means.exp(), torch.tensor([[1 / 32**0.5, 1 / 16]]).double())
    torch.testing.assert_close(found.renormalized.exp(), torch.tensor([[1 / 3, 2 / 3]]).double())
    torch.testing.assert_close(found.mass, torch.tensor([3 / 32]).double())
    assert found.lengths.tolist() == [[2, 1]]


def test_prompts_may_have_choices_of_their_own():
    found = choice_logprobs(by_token, PROMPTS, CHOICES)
    assert found.sums.exp().tolist() == pytest.approx(
        [pytest.approx(row) for row in ([2**-5, 2**-11, 0], [2**-3, 0, 0], [2**-4, 2**-6, 2**-5])]
    )
    assert found.lengths.tolist() == [[2, 3, 0], [1, 0, 0], [1, 2, 1]]
    torch.testing.assert_close(found.renormalized.exp().sum(-1), torch.ones(3).double())
    assert found.means[0, 2] == found.renormalized[1, 1] == -torch.inf
    assert found.mass[1] == pytest.approx(2**-3)


@pytest.mark.parametrize("max_tokens", [None, 1, 9, 1000])
@pytest.mark.parametrize("share_prefixes", [True, False])
def test_they_are_the_models_own_log_probs(max_tokens, share_prefixes):
    causal = model()
    found = choice_logprobs(ModelScores(causal, share_prefixes=share_prefixes), PROMPTS, CHOICES, max_tokens)
    for q, (prompt, own) in enumerate(zip(PROMPTS, CHOICES, strict=True)):
        for v, choice in enumerate(own):
            ids = torch.tensor([prompt + choice])
            logprobs = causal(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
            assert found.sums[q, v].item() == pytest.approx(logprobs[len(prompt) - 1 :].sum().item(), abs=1e-10)
    assert not found.sums.requires_grad


def test_all_prompts_are_one_forest():
    asked = []
    choice_logprobs(lambda forest: asked.append(forest.input_ids.tolist()) or by_token(forest), PROMPTS, CHOICES)
    assert asked == [[5, 6, 7, 1, 3, 9, 2]]  # no token twice, and no last one


def test_a_choice_within_another_is_counted_once():
    """What begins with [1, 2] begins with [1]."""
    found = choice_logprobs(by_token, [[7], [7]], [[[1], [1, 2]], [[3], [3]]])
    assert found.mass.tolist() == pytest.approx([1 / 4, 1 / 16])
    assert found.sums.exp()[0].tolist() == pytest.approx([1 / 4, 1 / 32])


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=8))
def test_the_mass_is_a_probability(choices):
    """Of four tokens that are equally likely: the share of their sequences that begin with a choice."""
    found = choice_logprobs(lambda forest: torch.full((len(forest.targets),), -math.log(4)).double(), [[7]], choices)
    sequences = [[a, b, c] for a in range(4) for b in range(4) for c in range(4)]
    begun = [any(one[: len(choice)] == choice for choice in choices) for one in sequences]
    assert found.mass.item() == pytest.approx(sum(begun) / 64)


def test_whole_vocabulary_has_all_the_mass():
    causal = model()
    vocabulary = [[token] for token in range(causal.config.vocab_size)]
    found = choice_logprobs(ModelScores(causal), PROMPTS, vocabulary)
    torch.testing.assert_close(found.mass, torch.ones(3).double())
    torch.testing.assert_close(found.renormalized, found.sums)


def test_gradients_are_those_of_the_scoring_function():
    causal = model()
    found = choice_logprobs(lambda forest: forest_logprobs(causal, forest), PROMPTS, CHOICES)
    found.renormalized[0, 0].backward()
    again = model()
    rows = [again(torch.tensor([[*PROMPTS[0], *choice]])).logits[0].log_softmax(-1) for choice in CHOICES[0]]
    sums = [sum(row[2 + n, token] for n, token in enumerate(c)) for row, c in zip(rows, CHOICES[0], strict=True)]
    torch.stack(sums).log_softmax(0)[0].backward()
    for one, other in zip(causal.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-7, rtol=0)  # norms of a Llama are float32


def test_nothing_asked_is_nothing_found():
    found = choice_logprobs(by_token, [], [])
    assert found.sums.shape == found.lengths.shape == (0, 0)
    assert found.mass.shape == (0,)


@pytest.mark.parametrize(
    ("prompts", "choices", "problem"),
    [
        ([[1], []], [[2]], "prompt 1 has no tokens"),
        ([[1]], [[[2], []]], "prompt 0: a choice has no tokens"),
        ([[1], [2]], [[[2]], []], "prompt 1: there are no choices after it"),
    ],
)
def test_what_has_no_tokens_has_no_likelihood(prompts, choices, problem):
    with pytest.raises(UserError, match=problem):
        choice_logprobs(by_token, prompts, choices)
