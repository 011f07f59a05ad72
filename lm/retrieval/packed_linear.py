"""Faster linear layers for inference on a CPU: weights reordered once for oneDNN, whose kernels then do the product.

torch multiplies float32 matrices with MKL, which leaves wide vector units of some processors idle; oneDNN uses what is
there. The numbers differ in the last bits only. Knows linear layers, not what they are part of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def available() -> bool:
    """Whether this build of torch has the kernels."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[int]:
    """Inside, float32 linear layers on the CPU that are called without gradients run on packed weights.

    The weights must not change inside: copies of them are what runs. Everything is as before afterwards.

    Yields: how many layers were packed.
    """
    layers = [m for m in model.modules() if type(m) is nn.Linear and _packable(m)] if available() else []
    for layer in layers:
        layer.forward = _Packed(layer)  # type: ignore[method-assign, assignment]
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward


def _packable(layer: nn.Linear) -> bool:
    return (
        layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 and type(layer.weight) is nn.Parameter
    )


class _Packed:
    """The forward of a linear layer on packed weights, or the layer's own where those do not serve."""

    def __init__(self, layer: nn.Linear):
        self.plain, self.bias = layer.forward, layer.bias
        with torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight, None)

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or not x.numel():
            return self.plain(x)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
