"""Weights of 16 bits: whether a step of an optimizer is large enough to change them.

Knows parameters and rates, and nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

LOOKED_AT = 65536
"""Weights of each parameter that are looked at: enough for a share."""


@torch.no_grad()
def still_share(rates: Mapping[nn.Parameter, float]) -> float:
    """Share of the weights to which a step adds nothing, because their dtype has no number that close.

    A bfloat16 weight has 8 significant bits, so that a step below about a 512th of it is rounded away, and the same
    step the next time again. Counts float32 weights, which have 24, too.

    Args:
        rates: size of a step, as Adam and its relatives make it, by parameter; of sharded ones this rank's shard is
            looked at, of each the first `LOOKED_AT` weights.

    Returns: in [0, 1]; 0 without parameters.
    """
    still, seen = 0, 0
    for parameter, rate in rates.items():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        weights = local.detach().flatten()[:LOOKED_AT]
        still += int(((weights + rate).to(weights.dtype) == weights).sum())
        seen += weights.numel()
    return still / max(seen, 1)
