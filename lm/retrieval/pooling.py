"""From hidden states to one vector per text.

Knows masks, not models. Shape suffixes: B texts, L tokens, D hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.backbones.sharding import whole
from lm.forests.batches import TextBatch
from text.errors import UserError

Pooling = Literal["mean", "cls", "last", "weighted_mean"]


@dataclass(frozen=True)
class EmbeddingHead:
    """What turns hidden states into an embedding.

    Args:
        pooling: see `pool`.
        pool_prefix: whether tokens of instruction and prefix count in the pooling.
        projection: weight [out, hidden] of a linear layer after pooling, or None.
        normalize: whether vectors have length 1.
    """

    pooling: Pooling
    pool_prefix: bool
    projection: Tensor | None
    normalize: bool

    def embed(self, model: Any, batch: TextBatch) -> Tensor:
        """One vector per text, [B, D], float32 or wider."""
        hidden_BLD = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        mask_BL = batch.attention_mask.bool()
        if not self.pool_prefix:
            mask_BL = mask_BL & (torch.arange(mask_BL.shape[1], device=mask_BL.device) >= batch.content_from[:, None])
        vectors_BD = pool(hidden_BLD, mask_BL, self.pooling)
        if self.projection is not None:
            vectors_BD = F.linear(vectors_BD, whole(self.projection).to(vectors_BD)).to(vectors_BD.dtype)
        return F.normalize(vectors_BD, dim=-1) if self.normalize else vectors_BD

    def width(self, model: Any) -> int:
        """D, of a model's embeddings."""
        return int(model.config.hidden_size if self.projection is None else self.projection.shape[0])


def pool(hidden_BLD: Tensor, mask_BL: Tensor, pooling: Pooling) -> Tensor:
    """One vector per text [B, D], in float32 or wider.

    Args:
        hidden_BLD: of the last layer.
        mask_BL: the tokens that count; padding may stand on either side.
        pooling: ``mean`` of the tokens, the first (``cls``) or the ``last`` of them, or ``weighted_mean`` with weights
            1, 2, ... along the text (arXiv 2202.08904, section 4.1).

    Raises:
        UserError: if no token of some text counts. Only on the CPU: elsewhere a look would stall the device, and
            lm/tokens/text_table.py has refused such a text by name.
    """
    mask_BL = mask_BL.bool()
    if mask_BL.device.type == "cpu" and not mask_BL.any(dim=1).all():
        raise UserError("a text has no token left to pool: its prefix fills max_length, or it is empty")
    hidden_BLD = hidden_BLD.to(torch.promote_types(hidden_BLD.dtype, torch.float32))
    if pooling in ("cls", "last"):
        place_BL = torch.arange(mask_BL.shape[1], device=mask_BL.device).expand_as(mask_BL)
        inside = place_BL.masked_fill(~mask_BL, -1 if pooling == "last" else mask_BL.shape[1])
        chosen_B = inside.amax(dim=1) if pooling == "last" else inside.amin(dim=1)
        return hidden_BLD[torch.arange(len(chosen_B), device=chosen_B.device), chosen_B]
    weights_BL = (mask_BL.cumsum(dim=1) * mask_BL if pooling == "weighted_mean" else mask_BL).to(hidden_BLD.dtype)
    return torch.einsum("bld,bl->bd", hidden_BLD, weights_BL) / weights_BL.sum(dim=1, keepdim=True)
