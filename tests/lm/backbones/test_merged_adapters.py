"""Adapters in the weights: the same model as before, at every door, also where weights are shared or narrow."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import export
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone, ScratchBackbone
from lm.backbones.merged_adapters import merged
from lm.backbones.run_backbone import TrainedBackbone
from lm.merging.merged_backbone import MergedBackbone
from modules import DPO
from tests.lm.backbones.test_run_backbone import a_run
from tests.stand_ins import LLAMA, published, tiny_tokenizer, token_rows
from text.errors import UserError

IDS = token_rows(3, seed=8)
ENDS = {"llama": ("lm_head", "embed_tokens"), "gpt2": ("lm_head", "wte"), "gemma3_text": ("lm_head", "embed_tokens")}
SIZES = {
    "llama": LLAMA | {"tie_word_embeddings": True},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gemma3_text": LLAMA | {"head_dim": 8, "tie_word_embeddings": True},
}


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


def far(one, other):
    """Largest difference, as a share of the largest logit."""
    return float((one - other).abs().max() / other.abs().max())


def adapted(model, targets, **options):
    config = LoraConfig(r=3, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **options)
    return get_peft_model(model, config)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True))


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
@pytest.mark.parametrize("which", ["head", "embeddings", "both", "neither"])
@pytest.mark.parametrize("architecture", SIZES)
def test_a_merge_is_the_same_model_in_memory_and_as_a_folder(architecture, which, options, tmp_path):
    torch.manual_seed(0)
    model = ScratchBackbone(architecture, SIZES[architecture]).build(tiny_tokenizer())
    head, embeddings = ENDS[architecture]
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    targets = {"head": [head], "embeddings": [embeddings], "both": [head, embeddings], "neither": "all-linear"}[which]
    expected = logits(peft_model := adapted(model, targets, **options))
    whole, rounding = merged(peft_model)
    assert not rounding
    assert whole.config.tie_word_embeddings == (which == "neither")
    assert far(logits(whole), expected) < 1e-5
    whole.tie_weights()  # as whoever loads or moves a model does
    assert far(logits(whole), expected) < 1e-5
    whole.save_pretrained(tmp_path)
    assert far(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected) < 1e-5


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_every_door_that_merges_gives_the_model_that_was_trained(tied, target, tmp_path):
    run = tmp_path / "version_0"
    module = a_run(run, PretrainedBackbone(tied, lora=LoRA(r=3, target_modules=["q_proj", target])))
    expected = logits(module.model)
    assert far(logits(AutoModelForCausalLM.from_pretrained(tied)), expected) > 1e-2

    export.main([str(run), str(tmp_path / "full")])
    export.main([str(run), str(tmp_path / "adapter"), "--adapter"])
    doors = {
        "export": AutoModelForCausalLM.from_pretrained(tmp_path / "full"),
        "the next run": TrainedBackbone(str(run)).build(tiny_tokenizer()),
        "a published adapter": PretrainedBackbone(tied, adapter=str(tmp_path / "adapter"), merge_adapter=True).build(
            tiny_tokenizer()
        ),
        "a merge of models": MergedBackbone(str(tmp_path / "full"), str(run), 0.5).build(tiny_tokenizer()),
    }
    for door, model in doors.items():
        assert far(logits(model), expected) < 1e-5, door
    assert TrainedBackbone(str(run), adapter="continue").build(tiny_tokenizer()).config.tie_word_embeddings


def test_what_is_sharded_has_the_parts_of_what_is_built(tied, tmp_path):
    a_run(run := tmp_path / "version_0", PretrainedBackbone(tied, lora=LoRA(r=3, target_modules=["lm_head"])))
    export.main([str(run), str(tmp_path / "adapter"), "--adapter"])
    for backbone in (
        TrainedBackbone(str(run)),
        PretrainedBackbone(tied, adapter=str(tmp_path / "adapter"), merge_adapter=True),
    ):
        with torch.device("meta"):
            empty = backbone.finish(backbone.skeleton(tiny_tokenizer()))
        built = backbone.build(tiny_tokenizer())
        assert [(n, p.shape, p.requires_grad) for n, p in empty.named_parameters()] == [
            (n, p.shape, p.requires_grad) for n, p in built.named_parameters()
        ]
        assert empty.config.tie_word_embeddings is built.config.tie_word_embeddings is False


def test_weights_that_other_layers_share_are_refused():
    model = ScratchBackbone("llama", LLAMA).build(tiny_tokenizer())
    first, second = (layer.self_attn.q_proj for layer in model.model.layers)
    second.weight = first.weight
    with pytest.raises(UserError, match="Linear that other layers share"):
        merged(adapted(model, ["q_proj"]))


def test_narrow_weights_are_merged_in_float32_and_rounded_once():
    torch.manual_seed(0)
    model = ScratchBackbone("llama", LLAMA, dtype="bfloat16").build(tiny_tokenizer())
    peft_model = adapted(model, ["q_proj"])
    layer = peft_model.get_base_model().model.layers[0].self_attn.q_proj
    a, b = (part["default"].weight.double() for part in (layer.lora_A, layer.lora_B))
    update = layer.scaling["default"] * (b @ a)
    exact = layer.base_layer.weight.double() + update
    wide, none = merged(copy.deepcopy(peft_model), torch.float32)
    found = wide.model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)
    assert not none
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    narrow, rounding = merged(peft_model)
    assert torch.equal(narrow.model.layers[0].self_attn.q_proj.weight, found.bfloat16())
    layers = [(w.model.layers[i].self_attn.q_proj.weight.double()) for i in range(2) for w in (wide, narrow)]
    off = torch.stack([layers[0] - layers[1], layers[2] - layers[3]]).abs()
    assert rounding.largest == pytest.approx(float(off.max()))
    assert rounding.total / rounding.entries == pytest.approx(float(off.mean()))
    assert 0 < rounding.share < 1
    assert "rounded to bfloat16" in str(rounding)


def test_an_export_of_lora_on_bf16_tells_what_rounding_took_and_float32_takes_nothing(tmp_path, capsys):
    base = str(published(tmp_path / "base", dtype="bfloat16"))
    run = tmp_path / "version_0"
    module = a_run(run, PretrainedBackbone(base, dtype="bf16", lora=LoRA(r=2)))
    capsys.readouterr()
    export.main([str(run), str(tmp_path / "narrow")])
    said = capsys.readouterr().out
    assert re.search(r"rounded to bfloat16: by [\d.e-]+ at most and [\d.e-]+ on average, [\d.]+% of", said)
    assert "rounded to bfloat16" in (tmp_path / "narrow" / "README.md").read_text()
    export.main([str(run), str(tmp_path / "wide"), "--dtype", "float32"])
    assert "rounded" not in capsys.readouterr().out + (tmp_path / "wide" / "README.md").read_text()
    exact = merged(copy.deepcopy(module.model), torch.float32)[0]
    wide = AutoModelForCausalLM.from_pretrained(tmp_path / "wide", dtype=torch.float32)
    narrow = AutoModelForCausalLM.from_pretrained(tmp_path / "narrow", dtype=torch.float32)
    assert far(logits(wide), logits(exact)) < 1e-6
    assert far(logits(narrow), logits(exact)) > 1e-4
    next_run = TrainedBackbone(str(run)).build(tiny_tokenizer())
    assert far(logits(next_run), logits(exact)) < 1e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_card_of_an_adapter_loads_the_base_as_it_was_trained(tmp_path, dtype):
    base = str(published(tmp_path / "base", dtype="bfloat16"))
    a_run(run := tmp_path / "version_0", PretrainedBackbone(base, dtype=dtype, lora=LoRA(r=2)))
    export.main([str(run), str(tmp_path / "out"), "--adapter"])
    card = (tmp_path / "out" / "README.md").read_text()
    scope: dict = {"folder": str(tmp_path / "out")}
    exec(card.partition("```python")[2].partition("```")[0], scope)
    assert scope["base"].dtype == getattr(torch, dtype)


def test_a_trained_bias_is_no_adapter_that_a_reference_could_be_kept_beside(tmp_path):
    base = published(tmp_path / "base", attention_bias=True)
    model = adapted(AutoModelForCausalLM.from_pretrained(base), ["q_proj"], bias="all")
    model.save_pretrained(tmp_path / "adapter")
    module = DPO(PretrainedBackbone(str(base), adapter=str(tmp_path / "adapter")))
    module.tokenizer = tiny_tokenizer()
    with pytest.raises(UserError, match=r"has bias: all: .* merge_adapter: true .* reference: precomputed"):
        module.configure_model()
