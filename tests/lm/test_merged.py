"""The mean of two runs as a backbone."""

from __future__ import annotations

import pytest
import torch

from lm.merged import MergedBackbone
from lm.trained import TrainedBackbone
from tests.stand_ins import scratch, tiny_tokenizer
from text.errors import UserError


@pytest.fixture
def runs(monkeypatch):
    """Two models by name, in place of runs on disk."""
    models = {}
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        models[name] = scratch().build(tiny_tokenizer()).to(torch.bfloat16)
    monkeypatch.setattr(TrainedBackbone, "load", lambda self, tokenizer: models[self.path])
    return models


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_every_weight_is_the_mean_and_the_ends_are_the_runs_bit_for_bit(runs, alpha):
    one, other = (weights(runs[name]) for name in ("one", "other"))
    merged = weights(MergedBackbone("one", "other", alpha).load(tiny_tokenizer()))
    for name, weight in merged.items():
        expected = (alpha * one[name].float() + (1 - alpha) * other[name].float()).to(weight.dtype)
        assert torch.equal(weight, expected)
        assert alpha not in (0, 1) or torch.equal(weight, (one if alpha else other)[name])


def test_models_of_other_shapes_are_refused(runs):
    runs["other"] = scratch(hidden_size=64).build(tiny_tokenizer())
    with pytest.raises(UserError, match="different shapes"):
        MergedBackbone("one", "other").load(tiny_tokenizer())


@pytest.mark.parametrize(
    ("options", "complaint"), [({"alpha": 1.5}, "from 0 to 1"), ({"second": "one"}, "are both 'one'")]
)
def test_wrong_options_are_refused(options, complaint):
    with pytest.raises(UserError, match=complaint):
        MergedBackbone(**({"first": "one", "second": "other"} | options))
