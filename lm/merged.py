"""Two models that began with the same weights as one backbone: merged when it is built, in memory (arXiv 2405.01535).

For studies and sweeps over alpha, which write no files: one config per alpha. Folders are made by lm/merging.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm.adapters import LoRA, Quantization
from lm.backbone import Backbone, PretrainedBackbone
from lm.fingerprint import fingerprint
from lm.merge_rules import Method, Recipe
from lm.trained import TrainedBackbone
from text.errors import UserError


@dataclass(frozen=True)
class MergedBackbone(Backbone):
    """Two merged models.

    Args:
        first: a run folder, a checkpoint, or a Hugging Face folder.
        second: another, that began with the same weights.
        alpha: from 0 to 1, the weight of the first; the second has the rest. With ``linear`` and ``slerp``, 0 and 1 are
            the models themselves. Task vectors that count in full, 1 each, are those of alpha 0.5 and ``scale: 2``.
        method: ``linear``, ``slerp``, ``task_arithmetic``, ``ties``, ``dare_linear``, ``dare_ties`` or
            ``dare_sequential``, which does not read alpha; see docs/merging.md.
        base: what both began with, for all methods but linear and slerp; of the same kinds.
        scale: see `lm.merge_rules.Recipe`, as for the following.
        density: share of entries that ``ties`` keeps.
        drop_rate: chance that DARE drops an entry.
        seed: of what is dropped.
    """

    first: str
    second: str
    alpha: float = 0.5
    method: Method = "linear"
    base: str | None = None
    scale: float | None = None
    density: float | None = None
    drop_rate: float | None = None
    seed: int | None = None
    lora: LoRA | None = None
    quantization: Quantization | None = None
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.first == self.second:
            raise UserError(
                f"backbone: 'first' and 'second' are both '{self.first}': a run merged with itself is itself"
            )
        if self.recipe.needs_base != (self.base is not None):
            raise UserError(f"backbone: {self.method} {'has no use for' if self.base else 'needs'} a 'base'")

    @property
    def recipe(self) -> Recipe:
        """How weights are merged."""
        given: dict[str, Any] = {key: getattr(self, key) for key in ("scale", "density", "drop_rate", "seed")}
        if self.method != "dare_sequential":
            given["alpha"] = self.alpha
        return Recipe(self.method, **given)

    @property
    def parts(self) -> list[Backbone]:
        """The models, and the base where there is one."""
        return [_part(path) for path in (self.first, self.second, self.base) if path is not None]

    @property
    def tokenizer_name(self) -> str | None:
        """That of the first model; the second must have the same."""
        return _part(self.first).tokenizer_name

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The merged model.

        Raises:
            UserError: if the models have different weights to merge, or other tokenizers.
        """
        model, *others = (part.load(tokenizer) for part in self.parts)
        theirs = [dict(other.named_parameters()) for other in others]
        for path, other in zip([self.second, self.base], theirs, strict=False):
            if _shapes(model.named_parameters()) != _shapes(other.items()):
                raise UserError(f"'{self.first}' and '{path}' are models of different shapes, and cannot be merged")
        with torch.no_grad():
            for name, mine in model.named_parameters():
                second, *base = (other[name] for other in theirs)
                mine.copy_(self.recipe.apply(name, [mine, second], *base))
        return model

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture of the first model."""
        return _part(self.first).skeleton(tokenizer)

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """Configuration, the merged input embedding, the weights of runs, and how they were merged."""
        mark = fingerprint(model, f"{self.first} + {self.second}", pretrained=True)
        runs = [part.fingerprint(model) for part in self.parts if isinstance(part, TrainedBackbone)]
        sums = [mark["tensor_sha256"], *(run["tensor_sha256"] for run in runs)]
        return mark | {"tensor": "merged weights", "tensor_sha256": f"{self.recipe} {' '.join(sums)}"}


def _part(path: str) -> Backbone:
    """A run or checkpoint of this project, or a published model."""
    return PretrainedBackbone(path) if (Path(path) / "config.json").is_file() else TrainedBackbone(path)


def _shapes(weights: Any) -> dict[str, list[int]]:
    return {name: [*tensor.shape] for name, tensor in weights}
