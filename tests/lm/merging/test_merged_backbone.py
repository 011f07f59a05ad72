"""Two models as one backbone: the mean of runs, and every method as lm/merging/folders.py writes it into a folder."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

import export
from lm.backbones.adapters import LoRA
from lm.backbones.merged_adapters import merged
from lm.backbones.run_backbone import TrainedBackbone
from lm.merging.folders import merge
from lm.merging.merged_backbone import MergedBackbone
from lm.tokens.tokenizer import BPETokenizer
from tests.lm.backbones.test_run_backbone import a_run
from tests.stand_ins import published, scratch, tiny_tokenizer
from text.errors import UserError


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Two models by name, in place of runs on disk."""
    models = {}
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        models[name] = scratch().build(tiny_tokenizer()).to(torch.bfloat16)
    monkeypatch.setattr(TrainedBackbone, "load", lambda self, tokenizer: copy.deepcopy(models[self.path]))
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr(TrainedBackbone, "tokenizer_name", str(tmp_path / "tokenizer"))
    return models


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_every_weight_is_the_mean_and_the_ends_are_the_runs_bit_for_bit(runs, alpha):
    one, other = (weights(runs[name]) for name in ("one", "other"))
    merged = weights(MergedBackbone("one", "other", alpha).load(tiny_tokenizer()))
    for name, weight in merged.items():
        expected = alpha * one[name].float() + (1 - alpha) * other[name].float()
        assert torch.equal(weight, expected)
        assert alpha not in (0, 1) or torch.equal(weight, (one if alpha else other)[name].float())
    for dtype, wanted in (("auto", torch.bfloat16), ("fp16", torch.float16)):
        narrow = weights(MergedBackbone("one", "other", alpha, dtype=dtype).load(tiny_tokenizer()))
        assert all(torch.equal(narrow[name], weight.to(wanted)) for name, weight in merged.items())  # rounded once


def test_models_of_other_shapes_are_refused(runs):
    runs["other"] = scratch(hidden_size=64).build(tiny_tokenizer())
    with pytest.raises(UserError, match="different shapes"):
        MergedBackbone("one", "other").load(tiny_tokenizer())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return [str(published(root / name, seed)) for seed, name in enumerate(("direct", "pairwise", "base"))]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("linear", {}),
        ("slerp", {}),
        ("task_arithmetic", {"scale": 2.0}),
        ("ties", {"density": 0.4}),
        ("dare_linear", {"drop_rate": 0.5, "seed": 3}),
        ("dare_ties", {}),
        ("dare_sequential", {}),
    ],
)
def test_folders_are_merged_as_on_disk(folders, tmp_path, method, options):
    given = {"method": method, **options} | ({} if method in ("linear", "slerp") else {"base": folders[2]})
    alpha = {} if method == "dare_sequential" else {"alpha": 0.3}
    expected = AutoModelForCausalLM.from_pretrained(merge(folders[:2], tmp_path / "out", **given, **alpha))
    found = MergedBackbone(*folders[:2], **given, **alpha).build(tiny_tokenizer())
    torch.testing.assert_close(weights(found), weights(expected), atol=0, rtol=0)


def test_every_choice_has_a_fingerprint_of_its_own(folders):
    choices = [{}, {"alpha": 0.3}, {"method": "slerp"}, {"method": "ties", "base": folders[2]}]
    marks = []
    for choice in choices:
        backbone = MergedBackbone(*folders[:2], **choice)
        marks.append(backbone.fingerprint(backbone.build(tiny_tokenizer())))
    assert len({mark["tensor_sha256"] for mark in marks}) == len(choices)
    assert len({mark["config_sha256"] for mark in marks}) == 1
    again = MergedBackbone(*folders[:2])
    assert again.fingerprint(again.build(tiny_tokenizer())) == marks[0]


def test_fresh_adapters_on_a_merge(folders):
    model = MergedBackbone(*folders[:2], lora=LoRA(r=2)).build(tiny_tokenizer())
    assert all(".lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    assert MergedBackbone(*folders[:2]).tokenizer_name == folders[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"alpha": 1.5}, "from 0 to 1"),
        ({"second": "one"}, "are both 'one'"),
        ({"method": "ties"}, "ties needs a 'base'"),
        ({"base": "three"}, "linear has no use for a 'base'"),
        ({"density": 0.5}, "'density' means nothing to linear"),
        ({"method": "lineer"}, "Did you mean: linear"),
    ],
)
def test_wrong_options_are_refused(options, complaint):
    with pytest.raises(UserError, match=complaint):
        MergedBackbone(**({"first": "one", "second": "other"} | options))


def test_folders_whose_ids_mean_other_words_are_refused(folders, tmp_path):
    shutil.copytree(folders[1], other := tmp_path / "other")
    BPETokenizer(300).build(["zebras and quaggas graze in zanzibar"] * 10).save_pretrained(other)
    with pytest.raises(UserError, match="different tokenizers: one id would mean two things"):
        MergedBackbone(folders[0], str(other)).load(tiny_tokenizer())


@pytest.mark.parametrize("lora", [None, LoRA(r=2)])
def test_a_run_on_merged_models_is_the_base_of_the_next(folders, tmp_path, lora):
    run = tmp_path / "version_0"
    module = a_run(run, MergedBackbone(folders[0], folders[1], 0.3, lora=lora))
    following = TrainedBackbone(str(run), attn_implementation="eager", dtype="bf16")
    model = following.build(tiny_tokenizer())
    assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager")
    expected = merged(copy.deepcopy(module.model))[0].state_dict()
    exact = TrainedBackbone(str(run)).build(tiny_tokenizer()).state_dict()
    torch.testing.assert_close(dict(exact), dict(expected), atol=1e-6, rtol=0)
    export.main([str(run), str(tmp_path / "out")])
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    torch.testing.assert_close(dict(opened), dict(expected), atol=1e-6, rtol=0)
