"""What was drawn for an optimizer step, and how it stands in a checkpoint.

Knows batches and numbers that were logged. It does not know how answers are drawn, nor what is learnt from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lm.forests.batches import PairBatch, RewardedBatch
from lm.forests.forest import Forest

KINDS = {kind.__name__: kind for kind in (PairBatch, RewardedBatch)}
"""Batches that can be kept, by name."""

Told = tuple[str, Tensor, Tensor | None]  # name, values, weights of what is logged


@dataclass
class Rollout:
    """Batches of fresh answers.

    Args:
        step: optimizer steps that were done when it was drawn.
        batches: what is learnt from, by the number of the micro-batch in its step.
        told: what is logged of it.
    """

    step: int
    batches: dict[int, Any]
    told: list[Told]

    def plain(self) -> dict[str, Any]:
        """Tensors on the host, numbers, lists: what a checkpoint may hold."""
        told = [[name, values.cpu(), None if weights is None else weights.cpu()] for name, values, weights in self.told]
        return {"step": self.step, "batches": {n: _plain(one) for n, one in self.batches.items()}, "told": told}

    @classmethod
    def of_plain(cls, plain: dict[str, Any], device: torch.device) -> Rollout:
        """What `plain` gave, on a device."""
        batches = {int(number): _batch(one).to(device) for number, one in plain["batches"].items()}
        told = [(name, v.to(device), None if w is None else w.to(device)) for name, v, w in plain["told"]]
        return cls(int(plain["step"]), batches, told)


def _plain(batch: Any) -> dict[str, Any]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    values["forest"] = {name: getattr(batch.forest.host, name) for name in _forest_fields()}
    tensors = {name: value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
    return values | tensors | {"kind": type(batch).__name__}


def _batch(plain: dict[str, Any]) -> Any:
    values = {name: value for name, value in plain.items() if name != "kind"}
    return KINDS[plain["kind"]](**values | {"forest": Forest(**values["forest"])})


def _forest_fields() -> list[str]:
    return [field.name for field in fields(Forest) if not field.name.startswith("_")]
