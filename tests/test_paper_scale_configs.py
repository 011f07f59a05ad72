"""What holds for every config of full size: weights that its rate can move, a schedule of its run, an overlay."""

from __future__ import annotations

import inspect

import pytest
import torch

import modules
from lm.steps.low_precision import still_share
from tests.paper_scale import ROOT, Recipe, recipes

RECIPES = {recipe.name: recipe for recipe in recipes()}
ONE_DEVICE = {"configs/dpo/mistral_7b_qlora.yaml"}  # bits that cannot be sharded


def test_all_of_them_are_found() -> None:
    folders = [name.split("/")[1] for name in RECIPES]
    counts = {folder: folders.count(folder) for folder in sorted(set(folders))}
    assert counts == {
        "co_supervision": 1, "dpo": 2, "evaluator": 3, "grpo": 1, "instructir": 1, "janus": 8, "knowledge_probe": 8,
        "kto": 1, "pegasus": 4, "reward_model": 1, "self_explore": 8, "self_judge": 4, "sft": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_each_names_an_overlay_or_is_for_one_device(name: str) -> None:
    recipe = RECIPES[name]
    assert bool(recipe.overlays) is (name not in ONE_DEVICE)
    assert all((ROOT / part).is_file() for composed in recipe.compositions for part in composed)


@pytest.mark.parametrize("name", RECIPES)
def test_no_rate_is_below_what_the_weights_can_add(name: str) -> None:
    """Weights of a usual size, in the precision that the config trains them in, with every overlay that it names."""
    usual = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.02
    for composed in [[name], *RECIPES[name].compositions]:
        precision, dtype, rate = trained_in(*composed)
        weights = usual.to(torch.bfloat16 if precision == "bf16-true" else getattr(torch, dtype))
        assert still_share({torch.nn.Parameter(weights): rate}) < 0.01


def trained_in(name: str, *others: str) -> tuple[str, str, float]:
    """The trainer's precision, the dtype of what is trained, and the rate."""
    files = [RECIPES[name].values, *(Recipe(ROOT / other).values for other in others)]
    precision = [file["trainer"]["precision"] for file in files if "precision" in file.get("trainer", {})][-1]
    model = files[0]["model"]
    given = [file["model"]["init_args"].get("optimizer") for file in files if "model" in file]
    rates = [optimizer["init_args"]["lr"] for optimizer in given if optimizer]
    backbone = model["init_args"]["backbone"]["init_args"]
    dtype = "float32" if "lora" in backbone else backbone.get("dtype", "float32")  # adapters are float32
    return precision, dtype, rates[-1] if rates else default_rate(getattr(modules, model["class_path"]))


def default_rate(method: type) -> float:
    """Of the optimizer that a module brings."""
    builders = (inspect.signature(kind).parameters.get("optimizer") for kind in method.__mro__)
    build = next(builder.default for builder in builders if builder is not None)
    return build([torch.zeros(1, requires_grad=True)]).defaults["lr"]


def test_a_rate_that_is_too_small_is_found() -> None:
    usual = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.02
    assert still_share({torch.nn.Parameter(usual.bfloat16()): 1e-5}) == pytest.approx(0.84, abs=0.02)
    assert still_share({torch.nn.Parameter(usual.bfloat16()): 5e-6}) == pytest.approx(0.92, abs=0.02)
    assert still_share({torch.nn.Parameter(torch.tensor([0.5, 1.0, 2.0]).bfloat16()): 0.003}) == 2 / 3
    assert still_share({}) == 0.0


@pytest.mark.parametrize("name", RECIPES)
def test_schedules_end_with_the_run_or_belong_to_a_longer_training(name: str) -> None:
    options = RECIPES[name].values["model"]["init_args"].get("lr_scheduler", {}).get("init_args", {})
    assert ("total_steps" in options) is ("start_step" in options)
