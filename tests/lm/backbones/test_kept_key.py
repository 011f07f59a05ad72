"""A key changes with everything that an answer depends on, and with nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch

from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.kept_key import digest, keeper, kept_key, model_sha256, precision_of
from lm.scoring.reference import KEPT, adapters_off, keep_adapter, kept_adapter
from tests.stand_ins import published, scratch, tiny_tokenizer


def model(seed=0, **config):
    torch.manual_seed(seed)
    return scratch(**config).build(tiny_tokenizer())


def adapted(folder, **lora):
    torch.manual_seed(0)
    return PretrainedBackbone(folder, lora=LoRA(r=2, **lora)).build(tiny_tokenizer())


def test_a_model_is_every_one_of_its_weights(tmp_path):
    folder = str(published(tmp_path / "base"))
    one = PretrainedBackbone(folder).build(tiny_tokenizer())
    before = model_sha256(one)
    assert before == model_sha256(PretrainedBackbone(folder).build(tiny_tokenizer())) == model_sha256(one)
    with torch.no_grad():
        one.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-6
    assert model_sha256(one) != before
    one.load_state_dict(PretrainedBackbone(folder).build(tiny_tokenizer()).state_dict())
    assert model_sha256(one) == before


def test_the_same_weights_with_another_configuration_are_another_model():
    """With heads of 16 or of 32 the matrices are the same, and what they compute is not."""
    one = model(num_attention_heads=4, num_key_value_heads=4)
    other = model(num_attention_heads=2, num_key_value_heads=2)
    other.load_state_dict(one.state_dict())
    assert model_sha256(one) != model_sha256(other)
    other = model(num_attention_heads=4, num_key_value_heads=4, rope_theta=5000.0)
    other.load_state_dict(one.state_dict())
    assert model_sha256(one) != model_sha256(other)


def test_adapters_count_with_their_scale_and_while_they_are_at_work(tmp_path):
    folder = str(published(tmp_path / "base"))
    one, twin, scaled = adapted(folder), adapted(folder), adapted(folder, alpha=64)
    assert model_sha256(one) == model_sha256(twin) != model_sha256(scaled)
    on = model_sha256(one)
    with adapters_off(one), adapters_off(scaled):
        assert model_sha256(one) == model_sha256(scaled) != on
        off = model_sha256(one)
    assert model_sha256(one) == on
    with torch.no_grad():
        next(p for n, p in one.named_parameters() if "lora_B" in n)[0, 0] += 1e-3
    assert model_sha256(one) != on
    with adapters_off(one):  # what they are trained on stays what it was
        assert model_sha256(one) == off


def test_a_kept_adapter_is_known_by_its_own_weights(tmp_path):
    """While the first one is trained beside it."""
    one = adapted(str(published(tmp_path / "base")))
    keep_adapter(one)
    trained = model_sha256(one)
    with kept_adapter(one):
        kept = model_sha256(one)
    with torch.no_grad():
        next(p for n, p in one.named_parameters() if "lora_B.default" in n)[0, 0] += 1e-3
    assert model_sha256(one) != trained
    with kept_adapter(one):
        assert model_sha256(one) == kept
        with torch.no_grad():
            next(p for n, p in one.named_parameters() if f"lora_B.{KEPT}" in n)[0, 0] += 1e-3
        assert model_sha256(one) != kept


def test_precision_is_of_weights_and_of_what_is_computed():
    float32 = model()
    assert precision_of(float32) == "float32"
    assert precision_of(copy.deepcopy(float32).bfloat16()) == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16):
        assert precision_of(float32) == "autocast bfloat16 float32"


@dataclass(frozen=True)
class How:
    words: tuple[str, ...] = ("a", "b")
    seed: int = 0


def test_a_key_is_made_of_all_parts():
    tokenizer, answering = tiny_tokenizer(), model()
    by = keeper(answering, tokenizer, How(), [2, 3])
    assert by == keeper(answering, tiny_tokenizer(), How(), (2, 3))
    templated = tiny_tokenizer()
    templated.chat_template = "{{ messages }}"
    others = [
        keeper(model(seed=1), tokenizer, How(), [2, 3]),
        keeper(answering, templated, How(), [2, 3]),
        keeper(answering, tokenizer, How(seed=1), [2, 3]),
        keeper(answering, tokenizer, How(), [3, 2]),
        keeper(model().bfloat16(), tokenizer, How(), [2, 3]),
    ]
    assert len({kept_key(one, "What?") for one in (by, *others)}) == 6
    assert kept_key(by, "What?") == kept_key(by, "What?") != kept_key(by, "What", "?")


def test_what_has_no_plain_value_is_no_part_of_a_key():
    with pytest.raises(TypeError, match="cannot be part of a key: give plain values"):
        digest(object())
