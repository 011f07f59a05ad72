"""How many tokens a model reads. Knows configurations, and no text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from lm.backbones.backbone import Backbone


def context_of(config: Any) -> int | None:
    """The most tokens that a model of this configuration reads; None where it has no limit."""
    text = config.get_text_config()
    scaling = getattr(text, "rope_scaling", None) or {}
    stretched = 0.0
    if scaling.get("rope_type") == "yarn":  # the others are told of as they are; llama3's factor is of frequencies
        stretched = scaling["factor"] * (scaling.get("original_max_position_embeddings") or 0)
    return max(getattr(text, "max_position_embeddings", None) or 0, int(stretched)) or None


def model_context(module: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that the language model of a LightningModule reads; None where it has no limit, or no model."""
    backbone = getattr(module, "backbone", None)
    return _context(backbone, tokenizer) if isinstance(backbone, Backbone) else None


def part_contexts(parts: Mapping[str, Backbone], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The most tokens that each of some models reads, by its name; those without a limit are left out."""
    found = {name: _context(backbone, tokenizer) for name, backbone in parts.items()}
    return {name: context for name, context in found.items() if context is not None}


def _context(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> int | None:
    config = backbone.configuration(tokenizer)
    return None if config is None else context_of(config)
