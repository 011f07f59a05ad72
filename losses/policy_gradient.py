"""Policy gradients from rewards of whole answers: advantages within a group, the clipped ratio, an estimate of the KL.

Pure functions of log-probs and rewards. They do not know where these come from.

Shape suffixes: G prompts, S samples of each; K tokens of all answers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
STABLE = 1e-4  # beside a standard deviation, as in TRL


def group_advantages(rewards_GS: Tensor, scale: Scale = "group") -> Tensor:
    """Rewards less their group's mean, over a standard deviation (arXiv 2402.03300, section 4.1.2).

    Args:
        rewards_GS: of the answers to each prompt.
        scale: over the deviation within the ``group`` (GRPO) or within the ``batch``, or ``none`` (Dr. GRPO, arXiv
            2503.20783, section 3.2, which finds the first to prefer questions that are very easy or very hard).

    Returns: advantages of the same shape; 0 for a group whose rewards are equal.
    """
    centred_GS = rewards_GS - rewards_GS.mean(dim=1, keepdim=True)
    if scale == "none":
        return centred_GS
    deviation = rewards_GS.std(dim=1, keepdim=True) if scale == "group" else rewards_GS.std()
    return centred_GS / (deviation + STABLE)


def clipped_surrogate(
    logprobs_K: Tensor, old_logprobs_K: Tensor, advantages_K: Tensor, low: float = 0.2, high: float = 0.2
) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with the ratio r of new to old (arXiv 1707.06347 eq. 7).

    Args:
        logprobs_K: of tokens under the policy, nats.
        old_logprobs_K: under the policy that wrote them; constants.
        advantages_K: of the answers that they belong to.
        low: how far the ratio may fall before a gradient ends.
        high: how far it may rise.

    Returns: losses of the tokens.
    """
    ratio_K = (logprobs_K - old_logprobs_K).exp()
    return -torch.minimum(ratio_K * advantages_K, ratio_K.clamp(1 - low, 1 + high) * advantages_K)


def reverse_kl(logprobs_K: Tensor, reference_K: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) at each token that is never negative (arXiv 2402.03300 eq. 4)."""
    lead_K = reference_K - logprobs_K
    return lead_K.exp() - lead_K - 1
