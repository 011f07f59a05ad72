"""Rewards of forests: those of transformers' own classifiers, whatever is shared; backbones with a scalar head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import PretrainedBackbone, ScratchBackbone
from lm.backbones.reward_backbone import PretrainedReward, ScalarHead, ScratchReward, padding_id, reward_backbone
from lm.forests.answer_forests import pair_forest
from lm.forests.forest import Forest, Path
from lm.scoring.rewards import forest_rewards
from lm.tokens.tokenizer import BPETokenizer
from tests.preference_stand_ins import random_pairs
from tests.stand_ins import LLAMA, TEXT, published, scratch, tiny_tokenizer
from text.errors import UserError

PAIRS = random_pairs(7)
EOS = 0


def ends(pairs=PAIRS) -> Forest:
    """Chosen and rejected rows, each read at its end token."""
    chosen = [(np.array(p.prompt), np.array([*p.chosen, EOS])) for p in pairs]
    rejected = [(np.array(p.prompt), np.array([*p.rejected, EOS])) for p in pairs]
    return pair_forest(chosen, rejected, [tuple(p.prompt) for p in pairs], "ends")


def rows(pairs=PAIRS) -> list[list[int]]:
    return [[*p.prompt, *side, EOS] for p in pairs for side in (p.chosen, p.rejected)]


def row_by_row(model) -> torch.Tensor:
    """What the classifier itself says of each row alone, without any padding."""
    with torch.no_grad():
        return torch.cat([model.eval()(torch.tensor([row])).logits[0] for row in rows()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


OPT = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32}
NEOX = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", LLAMA),
        ("mistral", LLAMA | {"sliding_window": 6}),
        ("qwen3", LLAMA | {"head_dim": 8}),
        ("gemma2", LLAMA | {"head_dim": 8}),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("gpt_neox", NEOX),
        ("opt", OPT),
    ],
)
@pytest.mark.filterwarnings("ignore:.*computes shared prefixes once per branch.*")
def test_rewards_are_the_classifiers_own(architecture, config):
    """Weights are float64; norms and attention of some architectures are float32 within (1e-7 of states of size 1)."""
    torch.manual_seed(0)
    model = reward_backbone(ScratchBackbone(architecture, config)).build(tiny_tokenizer()).double().eval()
    expected = row_by_row(model)
    for share in (True, False, "auto"):
        with torch.no_grad():
            torch.testing.assert_close(forest_rewards(model, ends(), share), expected, atol=1e-6, rtol=0)
    assert expected.std() > 1e-2


def test_shared_prompts_give_the_gradients_of_rows(folder):
    gradients = []
    for share in (True, False):
        torch.manual_seed(0)
        model = PretrainedReward(folder).build(tiny_tokenizer())
        chosen, rejected = forest_rewards(model, ends(), share).view(-1, 2).unbind(1)
        (-torch.nn.functional.logsigmoid(chosen - rejected)).mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(g is not None and g.abs().max() > 0 for g in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_a_forest_without_paths_still_passes_through_the_model(folder):
    model = PretrainedReward(folder).build(tiny_tokenizer())
    rewards = forest_rewards(model, Forest.from_paths([]))
    assert rewards.shape == (0,)
    rewards.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_equal_rows_have_equal_rewards_in_the_order_of_the_paths(folder):
    model = PretrainedReward(folder).build(tiny_tokenizer()).eval()
    one, other = Path([5, 6, 7, EOS, 0], 4), Path([5, 9, EOS, 0], 3)
    longer = Path([5, 6, 7, EOS, 0, 8, EOS, 0], 7)  # its tokens go on where the first one's dummy target stands
    rewards = forest_rewards(model, Forest.from_paths([one, other, longer, one]))
    alone = torch.cat([forest_rewards(model, Forest.from_paths([path])) for path in (one, other, longer, one)])
    torch.testing.assert_close(rewards, alone, atol=1e-6, rtol=0)
    assert rewards[0] == rewards[3]


@pytest.mark.parametrize(
    ("forest", "message"),
    [
        (Forest.from_paths([Path([1, 2, 3], 1)]), "must be of layout 'ends'"),
        (Forest.from_paths([Path([999, 0], 1)]), "token id 999 is outside the model's vocabulary"),
    ],
)
def test_other_forests_are_refused(folder, forest, message):
    with pytest.raises(UserError, match=message):
        forest_rewards(PretrainedReward(folder).build(tiny_tokenizer()), forest)


def test_a_model_without_such_a_head_is_refused():
    with pytest.raises(UserError, match="no sequence classifier for models of type granite"):
        ScratchReward("granite", LLAMA).build(tiny_tokenizer())
    with pytest.raises(UserError, match="has no linear head without bias for one number"):
        ScratchReward("bert", NEOX).build(tiny_tokenizer())


# ---- backbones


def test_a_language_model_keeps_its_layers_and_gets_a_head(folder):
    model = PretrainedReward(folder).build(tiny_tokenizer())
    causal = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(model.model.state_dict(), causal.model.state_dict(), atol=0, rtol=0)
    assert isinstance(model.score, ScalarHead)
    assert model.score.weight.shape == (1, 32)
    assert 0.01 < model.score.weight.std() < 0.03  # transformers' own: 0.02
    assert model.training
    assert PretrainedReward(folder).fingerprint(model)["head"] == "drawn"
    assert (
        ScratchReward("llama", LLAMA).fingerprint(ScratchReward("llama", LLAMA).build(tiny_tokenizer()))["head"]
        == "drawn"
    )


def test_a_published_reward_model_keeps_its_head(folder, tmp_path):
    torch.manual_seed(3)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(tmp_path)
    backbone = reward_backbone(PretrainedBackbone(str(tmp_path)))
    model = backbone.build(tiny_tokenizer())
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(model.score.weight, opened.score.weight, atol=0, rtol=0)
    assert backbone.fingerprint(model)["head"] == "trained"
    with torch.no_grad():
        torch.testing.assert_close(forest_rewards(model.eval(), ends()), row_by_row(opened), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match=r"lacks 1 weights of LlamaForCausalLM, such as lm_head.weight"):
        PretrainedBackbone(str(tmp_path)).build(tiny_tokenizer())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_leave_the_head_whole_and_in_full_precision(folder, dtype):
    backbone = PretrainedReward(folder, dtype=dtype, lora=LoRA(r=2))
    model = backbone.build(tiny_tokenizer())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    heads = [name for name in trained if ".lora_" not in name]
    assert heads == ["base_model.model.score.modules_to_save.default.weight"]
    assert all(p.dtype == torch.float32 for p in trained.values())
    rewards = forest_rewards(model, ends())
    assert rewards.dtype == torch.float32
    rewards.sum().backward()
    assert trained[heads[0]].grad.abs().max() > 0
    with torch.device("meta"):
        bones = backbone.finish(backbone.skeleton(tiny_tokenizer()))
    described = [{n: (p.shape, p.dtype, p.requires_grad) for n, p in m.named_parameters()} for m in (bones, model)]
    assert described[0] == described[1]


def test_few_bits_leave_the_head_alone(folder):
    model = PretrainedReward(folder, lora=LoRA(r=2), quantization=Quantization(4)).build(tiny_tokenizer())
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert torch.uint8 in kinds.values()
    assert kinds["base_model.model.score.modules_to_save.default.weight"] == torch.float32
    forest_rewards(model, ends()).sum().backward()


def test_rewards_are_float32_under_autocast(folder):
    model = PretrainedReward(folder).build(tiny_tokenizer()).eval()
    with torch.no_grad():
        exact = forest_rewards(model, ends())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = forest_rewards(model, ends())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0)  # states of size 1, weights of 0.02, width 32
    assert (rough != rough.bfloat16().float()).any()  # not a bfloat16 in a float32's clothes


def test_the_kind_follows_the_backbone_that_was_given(folder):
    backbone = reward_backbone(PretrainedBackbone(folder, lora=LoRA(r=3)))
    assert backbone == PretrainedReward(folder, lora=LoRA(r=3))
    assert reward_backbone(backbone) is backbone
    assert type(reward_backbone(scratch())) is ScratchReward
    assert reward_backbone("llama") == "llama"


def test_padding_is_never_what_ends_a_text():
    tokenizer = BPETokenizer(vocab_size=300, special_tokens=("<pad>",)).build(TEXT)
    assert padding_id(tokenizer) is None
    tokenizer.pad_token = tokenizer.eos_token
    assert padding_id(tokenizer) is None
    tokenizer.unk_token = "<pad>"
    assert padding_id(tokenizer) == tokenizer.unk_token_id
    tokenizer.pad_token = "a"
    assert padding_id(tokenizer) == tokenizer.pad_token_id
