"""How many tokens a model reads: one number, whoever asks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from lm.backbones.context import context_of, model_context
from lm.generation import engine_of
from tests.stand_ins import scratch, tiny_tokenizer

PLAIN = {"max_position_embeddings": 64}
YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


@pytest.mark.parametrize(
    ("config", "context"),
    [
        (PLAIN, 64),
        (PLAIN | YARN, 256),  # as Qwen 2.5 asks for
        (PLAIN | {"max_position_embeddings": 256} | YARN, 256),  # as gpt-oss says it
        (PLAIN | {"rope_scaling": LLAMA_3}, 64),  # as Llama 3.2 says it: 32 x 8,192, and 131,072 positions
    ],
)
def test_data_and_engines_know_the_same_context(config, context):
    backbone, tokenizer = scratch(**config), tiny_tokenizer()
    model = backbone.build(tokenizer)
    assert context_of(model.config) == context
    assert model_context(SimpleNamespace(backbone=backbone), tokenizer) == context
    assert engine_of("auto", model, tokenizer, 512).context == context


def test_a_model_without_positions_has_no_limit():
    assert context_of(AutoConfig.for_model("bloom")) is None
