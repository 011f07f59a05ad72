"""Watches how far the space of tokens moves while something else is learnt beside it.

It knows the input embedding of a language model. It does not know what is learnt.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lm.backbones.adapters import base_of
from lm.backbones.sharding import whole
from metrics.embedding_space import drift, mean_cosine, spread


class TokenDrift(Callback):
    """Logs ``val/token_drift`` and ``val/mean_cosine/tokens``, and both of ``train/`` at the end of every epoch.

    The first is how far token embeddings are from where training began, as a share of their length; the second is how
    narrow their cone is. A run that goes on measures from its own beginning.
    """

    def __init__(self) -> None:
        self.before: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where training began."""
        return {} if self.before is None else {"before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where it began."""
        self.before = state.get("before")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the beginning, unless it is known."""
        rows = self._rows(pl_module)
        if self.before is None:
            self.before = rows

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how far it is."""
        if not trainer.sanity_checking:
            self._log(pl_module, "val")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how far it is; a run without validation has no other moment for it."""
        self._log(pl_module, "train")

    def _log(self, pl_module: LightningModule, split: str) -> None:
        if self.before is None:
            return
        rows = self._rows(pl_module)
        pl_module.log(f"{split}/token_drift", drift(self.before, rows))
        pl_module.log(f"{split}/mean_cosine/tokens", mean_cosine(F.normalize(rows, dim=1)))

    @staticmethod
    @torch.no_grad()
    def _rows(pl_module: Any) -> Tensor:
        """Some token embeddings [N, D], on the host; every rank of a sharded model has to ask."""
        weight = whole(base_of(pl_module.model).get_input_embeddings().weight)
        return spread(weight).float().cpu().clone()
