"""Models whose activations nobody knows; what is estimated of others is looked at in tests/callbacks/test_cost.py."""

from types import SimpleNamespace

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, ViTConfig, ViTModel

from lm.scoring.memory import activation_bytes, token_budget
from tests.stand_ins import LLAMA

SMALL = {"hidden_size": 8, "num_hidden_layers": 1}


def layers_of_their_own():
    """A decoder whose layers differ in width, as Gemma 3n's may."""
    model = torch.nn.Linear(2, 2)
    model.config = SimpleNamespace(**LLAMA | {"vocab_size": 16, "intermediate_size": [64, 128]})
    return model


@pytest.mark.parametrize(
    "made",
    [
        lambda: MambaForCausalLM(MambaConfig(**SMALL, state_size=2, vocab_size=16)),
        lambda: ViTModel(ViTConfig(**SMALL, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4)),
        layers_of_their_own,
    ],
)
def test_what_is_no_decoder_with_attention_is_not_guessed(made):
    model = made()
    assert activation_bytes(model, 100, "32-true") is None
    assert token_budget(model, torch.device("cpu"), "32-true") is None
