"""Dropout switched off for good: a loss that compares two policies would otherwise compare their noise.

Knows modules of torch and the habits of transformers, nothing of losses.
"""

from __future__ import annotations

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Set every probability of dropping something to 0, in dropout modules and in numbers that layers keep.

    Attention layers of transformers have no dropout module: they hold a number (``attention_dropout``, ...).
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
