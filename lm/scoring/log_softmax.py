"""Some entries of a log-softmax on a CPU, with one tensor of states x vocabulary from forward to backward.

`log_softmax` followed by indexing holds three in its backward pass: its own result, the zeros that gradients are put
into, and the gradient of the logits. Here the logits stay, with one number per state, and become their own gradient,
slice by slice, each small enough for the cache. An accelerator would wait between slices.

Legend: U states, V vocabulary, N picked entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SOFTMAX_STATES = 32  # of a slice


def log_norms(logits_UV: Tensor) -> Tensor:
    """What a log-softmax takes from the logits of each state, [U], float32 or wider."""
    wide = torch.promote_types(logits_UV.dtype, torch.float32)
    return torch.cat([logits.to(wide).logsumexp(-1) for logits in logits_UV.split(SOFTMAX_STATES)])


class PickedLogProbs(torch.autograd.Function):
    """``logits_UV.log_softmax(-1)[state_of_N, targets_N]``, float32 or wider. Its backward pass consumes the logits.

    Nothing else may want them then: torch refuses a second backward pass, and one of whatever else has saved them.
    """

    @staticmethod
    def forward(ctx: Any, logits_UV: Tensor, state_of_N: Tensor, targets_N: Tensor) -> Tensor:
        """The entries, [N]."""
        norms_U = log_norms(logits_UV)
        ctx.save_for_backward(logits_UV, norms_U, state_of_N, targets_N)
        return logits_UV[state_of_N, targets_N].to(norms_U.dtype) - norms_U[state_of_N]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_N: Tensor) -> tuple[Tensor, None, None]:
        """The slope of each entry at its own logit, less the softmax times the slopes of all entries of its state."""
        logits_UV, norms_U, state_of_N, targets_N = ctx.saved_tensors
        slopes_U = torch.zeros_like(norms_U).index_add_(0, state_of_N, slopes_N)
        gradient_UV = logits_UV.detach()  # the same memory
        slices = (t.split(SOFTMAX_STATES) for t in (gradient_UV, norms_U, slopes_U))
        for gradient, norms, slopes in zip(*slices, strict=True):
            gradient.copy_((gradient - norms[:, None]).exp_().mul_(-slopes[:, None]))
        gradient_UV.index_put_((state_of_N, targets_N), slopes_N.to(gradient_UV.dtype), accumulate=True)
        return gradient_UV, None, None
