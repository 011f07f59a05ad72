"""Encoders from descriptions: what they leave out, what they refuse, and packed weights that give the same numbers."""

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

from lm.backbones.adapters import LoRA
from lm.backbones.encoder import PretrainedEncoder, ScratchEncoder, WordTokenizer
from lm.retrieval.packed_linear import available, packed_linears
from text.errors import UserError

TOKENIZER = WordTokenizer().build(["a b c d e f"])
SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
INPUTS = {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


def bert_folder(path) -> str:
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES, max_position_embeddings=32)).save_pretrained(path)
    return str(path)


def test_an_encoder_has_no_pooler_and_trains(tmp_path):
    model = PretrainedEncoder(bert_folder(tmp_path)).build(TOKENIZER)
    assert model.training
    model(**INPUTS).last_hidden_state.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_of_a_two_part_model_the_encoder_alone(tmp_path):
    config = T5Config(vocab_size=32, d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    model = PretrainedEncoder(str(tmp_path)).build(TOKENIZER)
    assert type(model).__name__ == "T5EncoderModel"


def test_adapters_on_an_encoder(tmp_path):
    model = PretrainedEncoder(bert_folder(tmp_path), lora=LoRA(r=2, target_modules=["query", "value"])).build(TOKENIZER)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_a_published_adapter_is_merged(tmp_path):
    plain = PretrainedEncoder(bert_folder(tmp_path / "base")).build(TOKENIZER).eval()
    adapted = PretrainedEncoder(str(tmp_path / "base"), lora=LoRA(r=2)).build(TOKENIZER).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = PretrainedEncoder(str(tmp_path / "base"), adapter=str(tmp_path / "adapter")).build(TOKENIZER).eval()
    out = [model(**INPUTS).last_hidden_state for model in (plain, adapted, merged)]
    torch.testing.assert_close(out[2], out[1], atol=1e-5, rtol=1e-5)
    assert (out[1] - out[0]).abs().max() > 1e-3
    assert all(p.requires_grad for p in merged.parameters())


def test_scratch_encoders():
    config = {k: v for k, v in SIZES.items() if k != "vocab_size"}
    model = ScratchEncoder("modernbert", config).build(TOKENIZER)
    assert model.get_input_embeddings().num_embeddings == len(TOKENIZER)
    with pytest.raises(UserError, match=r"'brt' is not a model of transformers\. Did you mean"):
        ScratchEncoder("brt", config)


@pytest.mark.skipif(not available(), reason="this build of torch has no oneDNN")
def test_packed_weights_give_the_same_numbers(tmp_path):
    model = PretrainedEncoder(bert_folder(tmp_path)).build(TOKENIZER).eval()
    with torch.no_grad():
        expected = model(**INPUTS).last_hidden_state
        with packed_linears(model) as layers:
            assert layers == 2 * 6
            torch.testing.assert_close(model(**INPUTS).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    with packed_linears(model):
        model(**INPUTS).last_hidden_state.sum().backward()  # gradients take the plain way
    assert model.encoder.layer[0].attention.self.query.weight.grad is not None
    with torch.no_grad():
        model.encoder.layer[0].attention.self.query.weight.neg_()
        assert not torch.allclose(model(**INPUTS).last_hidden_state, expected)  # and nothing packed is left behind
