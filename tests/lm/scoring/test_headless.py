"""States of decoders without a head are those of plain rows; models that read both ways are refused."""

from __future__ import annotations

import pytest
import torch

from lm.backbones.adapters import LoRA
from lm.backbones.encoder import PretrainedEncoder, ScratchEncoder
from lm.forests.forest import Forest, Path
from lm.scoring.headless import model_states
from tests.stand_ins import LLAMA, published, scratch, tiny_tokenizer
from text.errors import UserError

TEXTS = [[5, 6, 7], [5, 6, 8, 9], [11, 12]]
FOREST = Forest.from_paths([Path(ids, len(ids), state=True) for ids in TEXTS], ["a", "a", "b"])


def expected(model) -> torch.Tensor:
    outputs = [model(input_ids=torch.tensor([ids]), output_hidden_states=True) for ids in TEXTS]
    return torch.stack([output.hidden_states[-1][0, -1] for output in outputs])


@pytest.mark.parametrize("shared", [True, False])
def test_states_are_those_of_rows(shared):
    torch.manual_seed(0)
    for backbone in (ScratchEncoder("llama", LLAMA), scratch()):
        model = backbone.build(tiny_tokenizer()).double()
        states = model_states(model, FOREST, shared)
        torch.testing.assert_close(states, expected(model), atol=1e-12, rtol=0)
        states.sum().backward()
        assert model.get_input_embeddings().weight.grad[5].abs().sum() > 0


def test_nothing_is_asked_and_all_weights_take_part():
    model = ScratchEncoder("llama", LLAMA).build(tiny_tokenizer())
    states = model_states(model, Forest.from_paths([]))
    assert states.shape == (0, 32)
    states.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_adapters_and_models_that_read_both_ways(tmp_path):
    folder = published(tmp_path / "model")
    adapted = PretrainedEncoder(str(folder), lora=LoRA(r=2)).build(tiny_tokenizer()).eval()
    plain = PretrainedEncoder(str(folder)).build(tiny_tokenizer()).eval()
    torch.testing.assert_close(model_states(adapted, FOREST), expected(plain), atol=1e-5, rtol=1e-5)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(UserError, match="reads both ways"):
        model_states(ScratchEncoder("bert", sizes).build(tiny_tokenizer()), FOREST)
