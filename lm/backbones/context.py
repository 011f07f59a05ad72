"""How many tokens a model reads. Knows configurations, and no text."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from lm.backbones.backbone import Backbone


def model_context(module: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that the language model of a LightningModule reads; None where it has no limit, or no model."""
    backbone = getattr(module, "backbone", None)
    config = backbone.configuration(tokenizer) if isinstance(backbone, Backbone) else None
    if config is None:
        return None
    text = config.get_text_config()
    scaling = getattr(text, "rope_scaling", None) or {}
    stretched = scaling.get("factor", 1) * scaling.get("original_max_position_embeddings", 0)  # YaRN beyond training
    return max(getattr(text, "max_position_embeddings", None) or 0, int(stretched)) or None
