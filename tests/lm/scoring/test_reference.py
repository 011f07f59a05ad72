"""A reference policy is the model before training, wherever it is kept, and being asked leaves no trace."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch

from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.dropout import disable_dropout
from lm.backbones.export import save_model
from lm.forests.forest import Forest, Path
from lm.scoring.model_scores import ModelScores
from lm.scoring.reference import (
    KEPT,
    adapters_off,
    choose_reference,
    frozen_copy,
    keep_adapter,
    kept_adapter,
    require_same_policy,
)
from tests.preference_stand_ins import random_pairs
from tests.stand_ins import published, scratch, tiny_tokenizer
from text.errors import UserError

IDS = torch.arange(24).view(2, 12)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base):
    """A published adapter that changes what the base computes."""
    model = PretrainedBackbone(base, lora=LoRA(r=4, dropout=0.1)).build(tiny_tokenizer())
    shaken(model)
    save_model(model, tiny_tokenizer(), folder := tmp_path_factory.mktemp("adapter"), adapter=True)
    return str(folder)


def shaken(model, seed=0):
    """The model after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def logits(model, context=None):
    model.eval()
    with torch.no_grad(), context or nullcontext():
        return model(IDS).logits


def forest():
    return Forest.from_paths([Path(pair.prompt + pair.chosen, len(pair.prompt)) for pair in random_pairs(4)])


def state_of(model):
    """All that a switch might change."""
    names = {n: (p.requires_grad, p.detach().clone()) for n, p in model.named_parameters()}
    modes = {n: m.training for n, m in model.named_modules()}
    active = {n: (m.active_adapters, m.disable_adapters) for n, m in model.named_modules() if hasattr(m, "lora_A")}
    return names, modes, active, torch.get_rng_state()


# ---- which one

AUTO = [("full", "copy"), ("fresh", "adapter_off"), ("continued", "adapter_named")]


@pytest.mark.parametrize(("kind", "mode"), AUTO)
def test_auto_is_the_cheapest_that_is_right(base, adapter, kind, mode):
    backbones = {
        "full": PretrainedBackbone(base),
        "fresh": PretrainedBackbone(base, lora=LoRA()),
        "continued": PretrainedBackbone(base, adapter=adapter),
    }
    assert choose_reference("auto", backbones[kind], needed=True) == mode
    assert choose_reference("auto", backbones[kind], needed=False) == "none"
    merged = PretrainedBackbone(base, adapter=adapter, merge_adapter=True, lora=LoRA())
    assert choose_reference("auto", merged, needed=True) == "adapter_off"
    with pytest.raises(UserError, match="before the adapter that training goes on"):
        choose_reference("adapter_off", backbones["continued"], needed=True)


# ---- adapters


def test_switched_off_adapters_are_those_that_peft_disables(base):
    model = shaken(PretrainedBackbone(base, lora=LoRA(r=4)).build(tiny_tokenizer()))
    with model.disable_adapter():
        expected = logits(model)
    torch.testing.assert_close(logits(model, adapters_off(model)), expected, atol=0, rtol=0)
    assert (logits(model) - expected).abs().max() > 1e-2


def test_the_kept_adapter_is_the_first_one_before_training(base, adapter):
    model = PretrainedBackbone(base, adapter=adapter).build(tiny_tokenizer())
    before, trained = logits(model), [n for n, p in model.named_parameters() if p.requires_grad]
    keep_adapter(model)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trained
    assert all(f".{KEPT}." not in name for name in trained)
    shaken(model)
    torch.testing.assert_close(logits(model, kept_adapter(model)), before, atol=0, rtol=0)
    assert (logits(model) - before).abs().max() > 1e-2
    with pytest.raises(UserError, match="no adapter to keep"):
        keep_adapter(scratch().build(tiny_tokenizer()))


@pytest.mark.parametrize("switch", [adapters_off, kept_adapter])
@pytest.mark.parametrize("breaks", [False, True])
def test_asking_leaves_no_trace(base, adapter, switch, breaks, monkeypatch):
    """Not even when it breaks: modes, adapters, what is trainable, random numbers."""
    model = PretrainedBackbone(base, adapter=adapter).build(tiny_tokenizer())
    keep_adapter(model)
    model.base_model.model.model.layers[0].eval()
    reference = ModelScores(model, switch)
    reference.path_logprobs(forest())  # what the model can do is found out once
    if breaks:

        def broken(*args):
            torch.rand(3)
            raise RuntimeError("in the middle")

        monkeypatch.setattr("lm.scoring.model_scores.forest_logprobs", broken)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="in the middle") if breaks else nullcontext():
        reference.path_logprobs(forest())
    after = state_of(model)
    torch.testing.assert_close(after[0], before[0], atol=0, rtol=0)
    assert after[1:3] == before[1:3]
    assert torch.equal(after[3], before[3])


def test_all_references_agree(base, adapter):
    """After training, each still says what the untrained policy said; under dropout too."""
    torch.manual_seed(0)
    continued = PretrainedBackbone(base, adapter=adapter).build(tiny_tokenizer())
    fresh = PretrainedBackbone(base, lora=LoRA(r=4, dropout=0.5)).build(tiny_tokenizer())
    for model, switch in ((continued, kept_adapter), (fresh, adapters_off)):
        twin, own = frozen_copy(model), ModelScores(model).path_logprobs(forest())
        if switch is kept_adapter:
            keep_adapter(model)
        shaken(model).train()
        copied = ModelScores(twin).path_logprobs(forest())
        torch.testing.assert_close(ModelScores(model, switch).path_logprobs(forest()), copied, atol=1e-5, rtol=1e-6)
        torch.testing.assert_close(copied, own, atol=1e-5, rtol=1e-6)
        assert (ModelScores(model).path_logprobs(forest()) - copied).abs().max() > 0.1
        assert not copied.requires_grad
        assert not any(p.requires_grad for p in twin.parameters())


# ---- dropout, and the check of the first step

FAMILIES = {
    "llama": {"attention_dropout": 0.5},
    "gpt2": {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
    "gpt_neox": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
    "falcon": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_without_dropout_training_and_evaluation_are_the_same(family):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    more = {"word_embed_proj_dim": 16, "ffn_dim": 16} if family == "opt" else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **more, **FAMILIES[family]))
    expected = logits(model)
    model.train()
    with torch.no_grad():
        assert (model(IDS).logits - expected).abs().max() > 1e-4
        disable_dropout(model)
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-6, rtol=1e-5)


def test_an_untrained_policy_equals_its_reference_but_for_rounding():
    model = scratch().build(tiny_tokenizer())
    sums = torch.tensor([-20.0, -30.0])
    require_same_policy(sums, sums + 9e-4, model, "copy")
    with pytest.raises(UserError, match=r"by 0\.0011 nats an answer, and 0\.001 could be rounding.*dropout"):
        require_same_policy(sums, sums + 1.1e-3, model, "copy")
    require_same_policy(sums * 100, sums * 100 + 9e-3, model, "copy")  # long answers
    require_same_policy(sums, sums + 4e-2, copy.deepcopy(model).bfloat16(), "copy")
    with torch.autocast("cpu"):
        require_same_policy(sums, sums + 4e-2, model, "copy")


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_rounding_to_16_bits_grows_with_the_sums(dtype, unit):
    """SmolLM2's own sums of 40 tokens, in two batches: 0.3 nats of 80 apart in bfloat16."""
    model = scratch().build(tiny_tokenizer()).to(dtype)
    sums = torch.tensor([-80.0, -120.0])
    require_same_policy(sums, sums + 0.9 * max(0.05, 100 * unit), model, "precomputed")
    with pytest.raises(UserError, match="could be rounding"):
        require_same_policy(sums, sums + 1.1 * max(0.05, 100 * unit), model, "precomputed")


def test_a_copy_of_a_compiled_model_is_compiled(base):
    twin = frozen_copy(scratch().build(tiny_tokenizer()), compiled=True)
    assert all(layer._compiled_call_impl is not None for layer in twin.model.layers)
