"""Adapters put into the weights that they were trained for: in float32, and rounded once.

Never into a weight that another layer reads too. Knows peft's layers.
Where models come from and where they go is said elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm.backbones.adapters import is_adapted
from text.errors import UserError

TOLD = 0.01
"""Share of the adapters' size above which rounding is worth a word where nobody asked."""


@dataclass
class Rounding:
    """What the last step of a merge, from float32 to a type of fewer bits, changed.

    Attributes:
        dtype: the type of fewer bits, as torch calls it ("bfloat16").
        largest: largest change of a weight.
        update: sum of the squares of what the adapters add to the weights.
        error: sum of the squares of the changes.
        total: sum of the absolute changes.
        entries: number of weights.
    """

    dtype: str = ""
    largest: float = 0.0
    update: float = 0.0
    error: float = 0.0
    total: float = 0.0
    entries: int = 0

    def add(self, before: Tensor, exact: Tensor, rounded: Tensor) -> None:
        """Count one weight: as it was, with the update, and as it is stored."""
        if exact.is_meta or exact.dtype == rounded.dtype:
            return
        self.dtype = str(rounded.dtype).removeprefix("torch.")
        off = (rounded.to(exact.dtype) - exact).abs()
        self.largest = max(self.largest, float(off.max()))
        self.total += float(off.sum(dtype=torch.float64))
        self.entries += off.numel()
        self.error += float(off.square().sum(dtype=torch.float64))
        self.update += float((exact - before).square().sum(dtype=torch.float64))

    def __bool__(self) -> bool:
        """Whether anything was rounded."""
        return self.entries > 0

    @property
    def share(self) -> float:
        """Size (root of the sum of squares) of the changes, in that of what the adapters add."""
        return (self.error / self.update) ** 0.5 if self.update else 0.0

    def __str__(self) -> str:
        """One sentence, with a remedy."""
        mean = self.total / max(self.entries, 1)
        return (
            f"merged weights were rounded to {self.dtype}: by {self.largest:.2g} at most and {mean:.2g} on average, "
            f"{self.share:.1%} of the size of what the adapters add; float32 keeps all of it"
        )


def merged(model: Any, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, Rounding]:
    """The model with its adapters in its weights; in place, the adapters are gone.

    An output layer that shares its weights with the embeddings gets its own where adapters change one of the two: the
    update would take part twice otherwise.

    Args:
        model: a `PeftModel`, or a bare model, which only changes its type.
        dtype: of all weights; that which they have when missing.

    Returns: the model, and what rounding took.

    Raises:
        UserError: if adapters change a weight that other layers than these two share.
    """
    rounding = Rounding()
    if is_adapted(model):
        _part_shared_weights(model)
        for layer in _adapted_layers(model):
            _merge_layer(layer, dtype, rounding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "already merged", and that the output layer has its own weights now
            model = model.merge_and_unload()
        _note_what_is_apart(model)
    return (model if dtype is None else model.to(dtype)), rounding


def _adapted_layers(model: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def _merge_layer(layer: Any, dtype: torch.dtype | None, rounding: Rounding) -> None:
    base = layer.get_base_layer()
    kinds = {name: p.dtype for name, p in base.named_parameters()}
    wide = max((torch.promote_types(kind, torch.float32) for kind in kinds.values()), key=lambda kind: kind.itemsize)
    layer.to(wide)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    layer.merge()
    for name, p in base.named_parameters():
        rounded = p.detach().to(dtype or kinds[name])
        rounding.add(before[name], p.detach(), rounded)
        p.data = rounded


def _part_shared_weights(model: Any) -> None:
    """Give each adapted layer weights of its own."""
    readers: dict[int, set[int]] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            readers.setdefault(id(p), set()).add(id(module))
    ends = {id(p) for end in _ends(model.get_base_model()) for p in end.parameters()}
    for layer in _adapted_layers(model):
        base = layer.get_base_layer()
        for name, p in list(base.named_parameters(recurse=False)):
            if len(readers[id(p)]) < 2:
                continue
            if id(p) not in ends:
                raise UserError(f"adapters change the weights of a {type(base).__name__} that other layers share")
            setattr(base, name, nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad))


def _ends(model: PreTrainedModel) -> list[Any]:
    """The input embeddings, and the output layer if there is one."""
    return [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]


def _note_what_is_apart(model: PreTrainedModel) -> None:
    """Tell all who save, load or tie it whether embeddings and output layer have their own weights now."""
    if len({id(end.weight) for end in _ends(model)}) < 2:
        return
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.all_tied_weights_keys = {}
