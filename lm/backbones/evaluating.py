"""A model looked at while it trains: evaluation now, and afterwards everything as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each part goes back to the mode that it was in (frozen ones were in eval mode)."""
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
