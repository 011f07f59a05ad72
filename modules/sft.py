"""Supervised fine-tuning: the answers of instructions, token by token.

This file knows forests of instructions, one path per answer. It does not know how a conversation became tokens
(datamodules/instruction.py).

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


class SFT(LanguageModule):
    r"""Next-token prediction of answers only.

    With answers :math:`y_i` of :math:`n_i` tokens to prompts :math:`x_i`, the loss is the mean over all answer tokens
    of a global batch,

    .. math:: L = -\frac{1}{\sum_i n_i} \sum_i \sum_{t=1}^{n_i} \log p_\theta(y_{i,t} \mid x_i, y_{i,<t}).

    An answer that several instructions share counts once for each of them, though it is computed once.

    Args:
        backbone: the model to train.
        optimizer: see BackboneModule.
        lr_scheduler: see BackboneModule.
        share_prefixes: see LanguageModule.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-5, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
    ):
        super().__init__(backbone, optimizer, lr_scheduler, share_prefixes)

    def answer_logprobs(self, batch: Forest) -> Tensor:
        """Log-prob of every answer token of every instruction, nats, [K]."""
        return self.forest_logprobs(batch)[batch.path_targets]

    def training_step(self, batch: Forest, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, whatever its split into micro-batches and ranks."""
        return self.global_mean(-self.answer_logprobs(batch))

    def validation_step(self, batch: Forest, batch_idx: int) -> None:
        """``val/loss``: the same mean over held-out answers, nats per token."""
        self.log_for("val", "loss", -self.answer_logprobs(batch))

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """``val/perplexity``: exp of ``val/loss``."""
        return means | {"perplexity": means["loss"].exp()} if "loss" in means else means
