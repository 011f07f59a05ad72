"""<What the method does, in one sentence> (arXiv <id>).

This file knows <what it computes with>. It does not know <who makes that>.

Legend: K scored tokens of all answers.
"""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.forest import Forest
from modules.base.language_module import LanguageModule
from text.errors import UserError


class NewMethod(LanguageModule):
    """Answers are learned token by token; a token counts the less, the surer the model is of it.

    With p the probability of a token, the loss is the mean of -(1 - p)^gamma log p over all answer tokens of a global
    batch (<arXiv id, equation>). Replace it by the loss of your paper.

    Args:
        backbone: the model to train.
        gamma: how much sure tokens are played down; 0 is supervised fine-tuning. <The paper's value, and its table.>
        optimizer: see BackboneModule.
        lr_scheduler: see BackboneModule.
        share_prefixes: see LanguageModule.

    Raises:
        UserError: for a negative ``gamma``.
    """

    def __init__(
        self,
        backbone: Backbone,
        gamma: float = 2.0,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-5, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
    ):
        super().__init__(backbone, optimizer, lr_scheduler, share_prefixes)
        if gamma < 0:
            raise UserError(f"model: 'gamma' is {gamma}; it must be 0 or more")
        self.gamma = gamma

    def losses(self, batch: Forest) -> Tensor:
        """The loss of every answer token, nats, [K]."""
        logprobs_K = self.forest_logprobs(batch)[batch.path_targets]
        return -((1 - logprobs_K.exp()) ** self.gamma) * logprobs_K

    def training_step(self, batch: Forest, batch_idx: int) -> Tensor:
        """The mean over the global batch, whatever its split into micro-batches and ranks."""
        return self.global_mean(self.losses(batch))

    def validation_step(self, batch: Forest, batch_idx: int) -> None:
        """``val/loss``: the same mean over held-out answers."""
        self.log_for("val", "loss", self.losses(batch))
