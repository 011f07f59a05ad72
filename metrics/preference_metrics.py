"""What a policy or a reward model makes of held-out pairs, exact over batches and ranks.

Each metric is a mean over pairs, kept as a sum and a count. This file knows rewards, lengths and log-probs of pairs. It
does not know whose they are.

Shape suffix: B pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection


class PairMean(Metric):
    """Mean over pairs of one number each; NaN over no pair."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def add(self, values_B: Tensor) -> None:
        """Take in a number or a truth value per pair."""
        self.total += values_B.sum(dtype=torch.float64)
        self.count += values_B.numel()

    def compute(self) -> Tensor:
        """The mean, float32."""
        return (self.total / self.count).float()


class PreferenceAccuracy(PairMean):
    """Share of pairs whose chosen answer has the higher reward; a tie is a miss."""

    higher_is_better = True

    def update(self, chosen_rewards: Tensor, rejected_rewards: Tensor) -> None:
        """Add pairs, [B] each."""
        self.add(chosen_rewards > rejected_rewards)


class RewardMargin(PairMean):
    """Mean of chosen less rejected reward."""

    def update(self, chosen_rewards: Tensor, rejected_rewards: Tensor) -> None:
        """Add pairs, [B] each."""
        self.add(chosen_rewards - rejected_rewards)


class LengthBiasAccuracy(PairMean):
    """Share of pairs whose chosen answer is the longer one: what is reached by counting tokens."""

    def update(self, chosen_lengths: Tensor, rejected_lengths: Tensor) -> None:
        """Add pairs, [B] each."""
        self.add(chosen_lengths > rejected_lengths)


class LengthMatchedAccuracy(PairMean):
    """Accuracy over pairs of like length, where counting tokens does not help.

    Args:
        within: lengths differ by less than this share of the longer one.
        **kwargs: of torchmetrics.
    """

    higher_is_better = True

    def __init__(self, within: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.within = within

    def update(
        self, chosen_rewards: Tensor, rejected_rewards: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor
    ) -> None:
        """Add pairs, [B] each."""
        longer_B = torch.maximum(chosen_lengths, rejected_lengths)
        like_B = (chosen_lengths - rejected_lengths).abs() < self.within * longer_B
        self.add((chosen_rewards > rejected_rewards)[like_B])


class ChosenDisplacement(PairMean):
    """Share of pairs whose chosen answer became less likely than under the reference (arXiv 2410.08847)."""

    higher_is_better = False

    def update(self, chosen_logps: Tensor, ref_chosen_logps: Tensor) -> None:
        """Add pairs: sums of log-probs, nats, [B] each."""
        self.add(chosen_logps < ref_chosen_logps)


def preference_metrics(prefix: str, reference: bool = True) -> MetricCollection:
    """All of them under the names they are logged by; each takes of `update`'s keywords what it needs.

    Args:
        prefix: of the names, such as ``val/``.
        reference: whether there is one that chosen answers could be displaced from.
    """
    metrics: dict[str, Metric] = {
        "rewards/accuracy": PreferenceAccuracy(),
        "rewards/margin": RewardMargin(),
        "length_bias_accuracy": LengthBiasAccuracy(),
        "accuracy_len_matched": LengthMatchedAccuracy(),
    }
    if reference:
        metrics["chosen_likelihood_displacement"] = ChosenDisplacement()
    # torchmetrics would merge metrics whose first states happen to be equal
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)  # type: ignore[arg-type]
