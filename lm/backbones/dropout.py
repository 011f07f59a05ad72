"""Dropout switched off for good: a loss that compares two policies would otherwise compare their noise.

Knows modules of torch and the habits of transformers, nothing of losses.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Set every probability of dropping something to 0: in dropout modules, layers and configurations.

    Attention layers of transformers have no dropout module: they hold a number (``attention_dropout``, ...), and some
    look it up in their configuration.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _silence(module)
        if (config := vars(module).get("config")) is not None:
            _silence(config)


def _silence(owner: Any) -> None:
    for name, value in list(vars(owner).items()):
        if "drop" in name and isinstance(value, float):
            setattr(owner, name, 0.0)
