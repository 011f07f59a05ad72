"""The layers of a language model, one after another: what is compiled, sharded and recomputed as one.

Knows modules. It does not know how they are built.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def decoder_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of the stack, outermost first."""
    for child in model.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from decoder_blocks(child)
