"""Kahneman-Tversky optimisation: learn from answers that are good or bad by themselves (arXiv 2402.01306).

This file knows labelled answers and two policies. It does not know which answer was put after which other prompt
(datamodules/preference.py), nor where the reference is (lm/scoring/reference.py).

Legend: P paths, R labelled answers (the first R paths; the others are mismatched).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.batches import LabelledBatch
from lm.protocols import HasPairTables
from lm.scoring.logprobs import path_lengths
from lm.steps.nonfinite import require_finite
from losses.preference import kto_loss
from modules.base.exact_logs import Split
from modules.base.policy_module import PolicyModule
from text.errors import UserError


class KTO(PolicyModule):
    r"""Preference learning from single answers.

    With log-ratios :math:`k_i = \log \pi(y_i|x_i) - \log \pi_{ref}(y_i|x_i)` and a reference point :math:`z_0`, the
    mean log-ratio of answers to prompts that are not theirs, the loss is the weighted mean over the global batch of

    .. math:: w_d \, (1 - \sigma(\beta (k_i - z_0))) \text{ of desirable answers, } \quad
              w_u \, (1 - \sigma(\beta (z_0 - k_i))) \text{ of the others (eqs. 7 and 8).}

    :math:`z_0` is estimated within a micro-batch, over all ranks, is at least 0, and passes no gradient.

    Args:
        backbone: see PolicyModule; so are reference, disable_dropout, optimizer, lr_scheduler and share_prefixes. Sums
            cannot be computed beforehand (``precomputed``): which prompts are mismatched changes from epoch to epoch.
        beta: how fast the value of an answer saturates. 0.1 in the paper (section 5).
        desirable_weight: w_d.
        undesirable_weight: w_u. The paper wants w_d n_d / (w_u n_u) within [1, 4/3] (section 4.2).
    """

    def __init__(
        self,
        backbone: Backbone,
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        **policy: Any,
    ):
        super().__init__(backbone, **policy)
        self.settle_reference(needed=True)
        if self.reference_mode == "precomputed":
            raise UserError("reference: 'precomputed': KTO compares answers after other prompts, which change by epoch")
        self.beta = beta
        self.desirable_weight, self.undesirable_weight = desirable_weight, undesirable_weight

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, z0 over the micro-batches of all ranks."""
        if len(batch) < 2:
            raise UserError("KTO puts answers after one another's prompts: give micro-batches of 2 records or more")
        return self.global_mean(self.losses(batch, "train"), batch.weights)

    def losses(self, batch: LabelledBatch, split: Split) -> Tensor:
        """The loss of each answer, [R]; logs what it was computed from."""
        policy_P, reference_P = self.compare(batch, split)
        assert reference_P is not None
        logps_R, ref_logps_R = policy_P[: len(batch)], reference_P[: len(batch)]
        kl = self.mismatched_ratio((policy_P - reference_P).detach()[len(batch) :])
        weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
        losses_R = kto_loss(logps_R, ref_logps_R, batch.labels, kl, beta=self.beta, **weights)
        require_finite(losses_R, {"c": logps_R, "c0": ref_logps_R}, batch.ids)
        self.log_answers(split, batch, logps_R, ref_logps_R, kl)
        return losses_R

    def mismatched_ratio(self, ratios_M: Tensor) -> Tensor:
        """Mean log-ratio of mismatched answers over all ranks, at least 0: z0. Without any it is 0."""
        sums = torch.stack([ratios_M.sum(), ratios_M.new_tensor(float(len(ratios_M)))])
        if self.trainer.world_size > 1:
            dist.all_reduce(sums)
        return (sums[0] / sums[1].clamp(min=1)).clamp(min=0)

    # ---------------------------------------------------------------------------------------------- its measures

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """``val/loss`` and the measures of training on held-out answers."""
        self.log_for("val", "loss", self.losses(batch, "val"), batch.weights)

    def test_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """The same as ``test/...``."""
        self.log_for("test", "loss", self.losses(batch, "test"), batch.weights)

    def log_answers(self, split: Split, batch: LabelledBatch, logps_R: Tensor, ref_logps_R: Tensor, kl: Tensor) -> None:
        """Rewards and log-probs of desirable (chosen) and other (rejected) answers; docs/preference.md lists them."""
        rewards_R = self.beta * (logps_R - ref_logps_R)
        lengths_R = path_lengths(batch.forest)[: len(batch)]
        counted_R = batch.weights > 0  # without a weight it is no answer: it has no token, say
        for side, is_R in (("chosen", counted_R & batch.labels), ("rejected", counted_R & ~batch.labels)):
            self.log_for(split, f"rewards/{side}", rewards_R, is_R)
            self.log_for(split, f"logps/{side}", logps_R, is_R)
            self.log_for(split, f"ref_logps/{side}", ref_logps_R, is_R)
            self.log_for(split, f"length/{side}", lengths_R, is_R)
        self.log_for(split, "rewards/accuracy", ((rewards_R > self.beta * kl) == batch.labels).float(), counted_R)
        self.log_for(split, "kl", kl)
        self.log_for(split, "desirable", batch.labels.float(), counted_R)

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the margin between the two kinds of answers."""
        if "rewards/chosen" in means:
            means["rewards/margin"] = means["rewards/chosen"] - means["rewards/rejected"]
        return means

    def on_train_start(self) -> None:
        """Warn of weights that let one kind of answers rule."""
        super().on_train_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        labels = getattr(data.table("train"), "labels", None) if isinstance(data, HasPairTables) else None
        if labels is not None:
            self._check_weights(float(labels.mean()))

    def _check_weights(self, desirable: float) -> None:
        ratio = self.desirable_weight * desirable / max(self.undesirable_weight * (1 - desirable), 1e-9)
        if not 1 <= ratio <= 4 / 3:
            rank_zero_warn(
                f"{desirable:.0%} of the answers are desirable, so w_d n_d / (w_u n_u) is {ratio:.3g}; KTO's authors "
                "advise 1 to 4/3: set desirable_weight or undesirable_weight"
            )
