"""Runs that began with the same weights as one backbone: their weights averaged, in memory (arXiv 2405.01535, eq. 3).

For studies and sweeps, which write no files. Merging folders, and by other methods, is the business of lm/merging.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm.adapters import LoRA, Quantization
from lm.backbone import Backbone
from lm.fingerprint import fingerprint
from lm.trained import TrainedBackbone
from text.errors import UserError


@dataclass(frozen=True)
class MergedBackbone(Backbone):
    """The linear merge of two runs: ``alpha`` times the weights of the first, the rest of the second.

    Args:
        first: a run folder or a checkpoint.
        second: another, that began with the same weights.
        alpha: from 0 to 1; 0 and 1 are the runs themselves.
    """

    first: str
    second: str
    alpha: float = 0.5
    lora: LoRA | None = None
    quantization: Quantization | None = None
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if not 0 <= self.alpha <= 1:
            raise UserError(f"backbone: 'alpha' is {self.alpha}; it must be from 0 to 1")
        if self.first == self.second:
            raise UserError(
                f"backbone: 'first' and 'second' are both '{self.first}', which merged with itself is itself"
            )

    @property
    def parts(self) -> tuple[TrainedBackbone, TrainedBackbone]:
        """The runs."""
        return TrainedBackbone(self.first), TrainedBackbone(self.second)

    @property
    def tokenizer_name(self) -> str | None:
        """That of the first run; the second must have the same."""
        return self.parts[0].tokenizer_name

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The merged model.

        Raises:
            UserError: if the runs have different weights to average, or other tokenizers.
        """
        model, other = (part.load(tokenizer) for part in self.parts)
        theirs = dict(other.named_parameters())
        if {name: p.shape for name, p in model.named_parameters()} != {name: p.shape for name, p in theirs.items()}:
            raise UserError(f"'{self.first}' and '{self.second}' are models of different shapes, and cannot be merged")
        with torch.no_grad():
            for name, mine in model.named_parameters():
                mean = self.alpha * mine.float() + (1 - self.alpha) * theirs[name].float()
                mine.copy_(mean if 0 < self.alpha < 1 else mine if self.alpha == 1 else theirs[name])
        return model

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture of the first run."""
        return self.parts[0].skeleton(tokenizer)

    def fingerprint(self, model: nn.Module) -> dict[str, Any]:
        """Configuration, and the weights of both."""
        mark = fingerprint(model, f"{self.first} + {self.second}", pretrained=False)
        marks = [part.fingerprint(model)["tensor_sha256"] for part in self.parts]
        return mark | {"tensor": "merged weights", "tensor_sha256": f"{self.alpha} {' '.join(marks)}"}
