"""Two models that began with the same weights as one backbone: merged when it is built, in memory (arXiv 2405.01535).

For studies and sweeps over alpha, which write no files: one config per alpha. Folders are made by
lm/merging/folders.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import Attention, Backbone, PretrainedBackbone
from lm.backbones.dtypes import Dtype, checked_dtype
from lm.backbones.fingerprint import fingerprint
from lm.backbones.run_backbone import TrainedBackbone
from lm.merging.folders import require_one_tokenizer
from lm.merging.rules import Method, Recipe
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
        scale: see `lm.merging.rules.Recipe`, as for the following.
        density: share of entries that ``ties`` keeps.
        drop_rate: chance that DARE drops an entry.
        seed: of what is dropped.
        dtype: of the merged weights; ``auto`` takes that of the first model. The models are read in their own types,
            merged in float32 (slerp in float64) and rounded once.
        attn_implementation: ``auto`` takes the best that the architecture has without further packages.
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
    dtype: Dtype = "float32"
    attn_implementation: Attention = "auto"

    begins_with: ClassVar[tuple[str, ...]] = ("first", "second", "base")

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        object.__setattr__(self, "dtype", checked_dtype(self.dtype, "auto"))
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
        return [self._part(path) for path in self.beginnings().values()]

    def _part(self, path: str) -> Backbone:
        """A run or checkpoint of this project, or a published model, in its own type of numbers."""
        kind: Any = PretrainedBackbone if (Path(path) / "config.json").is_file() else TrainedBackbone
        return kind(path, dtype="auto", attn_implementation=self.attn_implementation)

    @property
    def tokenizer_name(self) -> str | None:
        """That of the first model; the second must have the same."""
        return self._part(self.first).tokenizer_name

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The merged model.

        Raises:
            UserError: if the models have different weights to merge, or other tokenizers.
        """
        self._require_one_vocabulary()
        model, *others = (part.load(tokenizer) for part in self.parts)
        theirs = [dict(other.named_parameters()) for other in others]
        for path, other in zip([self.second, self.base], theirs, strict=False):
            if _shapes(model.named_parameters()) != _shapes(other.items()):
                raise UserError(f"'{self.first}' and '{path}' are models of different shapes, and cannot be merged")
        dtype = model.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
        with torch.no_grad():
            for name, mine in model.named_parameters():
                second, *base = (other[name] for other in theirs)
                mine.data = self.recipe.apply(name, [mine, second], *base, dtype=dtype)
        return model.to(dtype)  # type: ignore[arg-type]  # and what is no parameter

    def _require_one_vocabulary(self) -> None:
        """Models whose ids mean other words have the same shapes, and would merge into nonsense."""
        parts = zip(self.beginnings().values(), self.parts, strict=True)
        names = {path: (part, part.tokenizer_name) for path, part in parts}
        require_one_tokenizer({p: part.tokenizer_at(name).build() for p, (part, name) in names.items() if name}, 2)

    def configuration(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig | None:
        """That of the first model."""
        return self._part(self.first).configuration(tokenizer)

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture of the first model."""
        model = self._part(self.first).skeleton(tokenizer)
        return model if self.dtype == "auto" else model.to(getattr(torch, self.dtype))

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """Configuration, the merged input embedding, the weights of runs, and how they were merged."""
        mark = fingerprint(model, f"{self.first} + {self.second}", pretrained=True)
        runs = [part.fingerprint(model) for part in self.parts if isinstance(part, TrainedBackbone)]
        sums = [mark["tensor_sha256"], *(run["tensor_sha256"] for run in runs)]
        merged = {"tensor": "merged weights", "tensor_sha256": f"{self.recipe} {' '.join(sums)}"}
        return mark | merged | {"files_sha256": self.files_sha256()}

    def files_sha256(self) -> str | None:
        """Hashes of what the models lie in; None if one has no weights."""
        held = [part.files_sha256() for part in self.parts]
        return None if None in held else " ".join(map(str, held))


def _shapes(weights: Any) -> dict[str, list[int]]:
    return {name: [*tensor.shape] for name, tensor in weights}
