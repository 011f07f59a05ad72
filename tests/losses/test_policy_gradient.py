"""Group-relative advantages, the clipped ratio and the KL estimate, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from losses.policy_gradient import clipped_surrogate, group_advantages, reverse_kl


def test_advantages_by_hand():
    """Rewards 1, 0, 0, 1: mean 1/2, deviation sqrt(1/3); a group of equal rewards teaches nothing."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    found = group_advantages(rewards)
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    torch.testing.assert_close(found[0], torch.tensor([1, -1, -1, 1]) * torch.tensor(expected, dtype=torch.float64))
    assert not found[1].any()
    assert group_advantages(rewards, "none")[0].tolist() == [0.5, -0.5, -0.5, 0.5]
    deviation = rewards.std().item() + 1e-4
    assert group_advantages(rewards, "batch")[0, 0].item() == pytest.approx(0.5 / deviation)


def test_the_clip_ends_gradients_beyond_the_ratio():
    """Ratios 1, 1.5, 0.5 of advantages 1 and -1: what has gone far enough is not pushed on."""
    ratios, advantages = torch.tensor([1.0, 1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    logprobs = ratios.log().requires_grad_()
    losses = clipped_surrogate(logprobs, torch.zeros(5), advantages, low=0.2, high=0.3)
    torch.testing.assert_close(losses.detach(), torch.tensor([-1.0, -1.3, -0.5, 1.5, 0.8]))
    losses.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, 0.0, -0.5, 1.5, 0.0]))


def test_the_kl_estimate_has_the_mean_of_the_kl():
    policy, reference = (torch.randn(2, 40, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    found = (policy.exp() * reverse_kl(policy, reference)).sum(-1)
    torch.testing.assert_close(found, (policy.exp() * (policy - reference)).sum(-1))
    assert (reverse_kl(policy, reference) >= 0).all()
