"""The base of every method that trains a language model: how tokens are scored.

A method inherits from `LanguageModule`, scores tokens with `forest_logprobs`, `path_logprobs` or `row_logprobs`, and
returns ``global_mean(losses)``. This file knows no method, and nothing of how text became tokens; training, logs and
checkpoints are in modules/base/backbone_module.py.

Legend: B rows, S tokens per row, N scored predictions, P paths.
"""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.backbones.parts import Part
from lm.forests.batches import TokenRows
from lm.forests.forest import Forest
from lm.scoring.logprobs import forest_logprobs, forest_logprobs_and_states, path_sums, row_logprobs
from modules.base.backbone_module import BackboneModule


class LanguageModule(BackboneModule):
    """A causal language model and its training, without an objective.

    Args:
        backbone: the model to train.
        optimizer: built over the trainable parameters; its weight decay is not applied to 1-D parameters.
        lr_scheduler: stepped once per optimizer step; null keeps the rate constant.
        share_prefixes: compute shared prefixes once (true), write them out as padded rows (false), or whichever the
            model can do (auto).
        parts: see BackboneModule.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
        parts: dict[str, Part] | None = None,
    ):
        super().__init__(backbone, optimizer, lr_scheduler, parts)
        self.share_prefixes = share_prefixes

    def forest_logprobs(self, forest: Forest) -> Tensor:
        """Log-probs log p(target | path to its source) of all predictions of a forest, nats, shape [N]."""
        self.count_tokens(forest.input_ids.numel())
        return forest_logprobs(self.model, forest, share_prefixes=self.share_prefixes)

    def path_logprobs(self, forest: Forest) -> Tensor:
        """Sum of the log-probs of each path of a forest, nats, shape [P], in the order the paths were given."""
        return path_sums(self.forest_logprobs(forest), forest)

    def logprobs_and_states(self, forest: Forest) -> tuple[Tensor, Tensor]:
        """Log-probs as above [N], and the hidden states that paths want (`Path.state`) [W, D], from one forward."""
        self.count_tokens(forest.input_ids.numel())
        return forest_logprobs_and_states(self.model, forest, share_prefixes=self.share_prefixes)

    def row_logprobs(self, rows: TokenRows) -> Tensor:
        """Log-probs log p(x[b, s+1] | x[b, <=s]) of dense rows, nats, shape [B, S-1]."""
        self.count_tokens(rows.input_ids.numel())
        return row_logprobs(self.model, rows.input_ids)
