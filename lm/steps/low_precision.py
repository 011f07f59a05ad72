"""Weights of 16 bits: whether a step of an optimizer is large enough to change them.

Knows parameters and rates, and nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

LOOKED_AT = 65536
"""Weights of each parameter that are looked at: enough for a share."""


@torch.no_grad()
def still_share(parameters: Iterable[nn.Parameter], rate: float) -> float:
    """Share of the weights to which a step of ``rate`` adds nothing, because their dtype has no number that close.

    A bfloat16 weight has 8 significant bits, so that a step below about a 512th of it is rounded away, and the same
    step the next time again. Counts float32 weights, which have 24, too.

    Args:
        parameters: that are trained; of sharded ones this rank's shard, of each the first `LOOKED_AT` weights.
        rate: size of a step, as Adam and its relatives make it.

    Returns: in [0, 1]; 0 without parameters.
    """
    still, seen = 0, 0
    for parameter in parameters:
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        weights = local.detach().flatten()[:LOOKED_AT]
        still += int(((weights + rate).to(weights.dtype) == weights).sum())
        seen += weights.numel()
    return still / max(seen, 1)
