"""Reference policies: where the model is that a policy's rewards are measured against, and how it is asked.

It is a frozen copy, or the policy itself: with its adapters switched off, or with a second adapter that stays as the
first one was. How either is asked is in lm/scoring/model_scores.py; sums that were computed before training are in
lm/scoring/reference_sums.py. Knows models, no losses.

Legend: P paths.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lm.backbones.adapters import is_adapted
from lm.backbones.backbone import Backbone
from lm.backbones.blocks import decoder_blocks
from text.errors import UserError

Reference = Literal["auto", "copy", "adapter_off", "adapter_named", "precomputed", "none"]
KEPT = "reference"  # the name of the second adapter


def choose_reference(asked: Reference, backbone: Backbone, needed: bool) -> Reference:
    """What ``auto`` stands for; what was asked for by name is held against the backbone.

    Args:
        asked: the option.
        backbone: whose model is trained.
        needed: whether the loss compares the policy with a reference at all.

    Raises:
        UserError: if the backbone has no such reference, or the wrong one.
    """
    adapted = backbone.lora is not None or backbone.continues_adapter
    if not needed:
        if asked not in ("auto", "none"):
            raise UserError(f"reference: '{asked}', but this loss compares with none: set it to 'none' or 'auto'")
        return "none"
    if asked == "none":
        raise UserError("reference: 'none', but this loss compares with one; see also 'reference_free'")
    if asked == "auto":
        return "copy" if not adapted else "adapter_named" if backbone.continues_adapter else "adapter_off"
    if asked in ("adapter_off", "adapter_named") and not adapted:
        raise UserError(f"reference: '{asked}', but the backbone trains no adapter: give it 'lora', or ask for 'copy'")
    if asked == "adapter_off" and backbone.continues_adapter:
        raise UserError(
            "reference: 'adapter_off' would compare with the model as it was before the adapter that training goes on "
            "with. Ask for 'adapter_named', which keeps a copy of it, or merge the adapter into the backbone"
        )
    return asked


def require_same_policy(policy_P: Tensor, reference_P: Tensor, model: nn.Module, mode: Reference) -> None:
    """Hold an untrained policy against its reference, which it should equal but for rounding.

    Args:
        policy_P: sums of the policy's log-probs, nats.
        reference_P: of the reference's, of as many of the first paths as it has.
        model: the policy; decides how much rounding is.
        mode: of the reference, for the message.

    Raises:
        UserError: if the mean difference is above 1e-3, more for sums beyond 100 nats; with 16-bit numbers above 5e-2,
            or a unit in the last place of the sums: each logit is rounded, in another way in another batch.
    """
    off = (policy_P.detach()[: len(reference_P)] - reference_P).abs().mean().item()
    size, device = reference_P.abs().mean().item(), policy_P.device.type
    dtypes = {parameter.dtype for parameter in model.parameters()}
    dtypes |= {torch.get_autocast_dtype(device)} if torch.is_autocast_enabled(device) else set()
    halves = [torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point and dtype.itemsize == 2]
    allowed = max(5e-2, max(halves) * size) if halves else 1e-3 * max(1.0, size / 100)
    if off > allowed:
        raise UserError(
            f"before the first update the policy differs from its reference ('{mode}') by {off:.3g} nats an answer, "
            f"and {allowed:.3g} could be rounding. Likely causes: dropout is on (disable_dropout: true), the reference "
            "is of another checkpoint, or its sums were computed with another template or tokenizer"
        )


def frozen_copy(model: nn.Module, compiled: bool = False) -> nn.Module:
    """A copy that is not trained; its blocks are compiled if ``compiled`` (copies lose that)."""
    twin = copy.deepcopy(model).requires_grad_(False).eval()
    for block in decoder_blocks(twin) if compiled else ():
        block.compile()
    return twin


# --- Adapters: peft's own switches also set requires_grad, which gathered weights take over from their shards at their
# first forward pass and then keep. These change nothing but what a layer computes.


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Within it the model computes what it would without its adapters."""
    with _layers_set(model, "_disable_adapters", True):
        yield


@contextmanager
def kept_adapter(model: nn.Module) -> Iterator[None]:
    """Within it the model computes with the adapter that `keep_adapter` made."""
    with _layers_set(model, "_active_adapter", [KEPT]):
        yield


def keep_adapter(model: nn.Module) -> None:
    """Copy the model's adapter into a second one that is never trained; the first stays the active one."""
    if not is_adapted(model):
        raise UserError(f"{type(model).__name__} has no adapter to keep")
    adapted: Any = model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    [first] = adapted.active_adapters
    config = copy.deepcopy(adapted.peft_config[first])
    if config.bias != "none":
        raise UserError(
            f"the adapter that is trained further has bias: {config.bias}: it trains biases of the base itself, so no "
            "frozen reference can be kept beside it; set merge_adapter: true (or adapter: merge for a run), or give "
            "reference: precomputed"
        )
    config.inference_mode = True
    adapted.add_adapter(KEPT, config)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in named.items():
            if f".{KEPT}." in f"{name}.":
                parameter.copy_(named[f"{name}.".replace(f".{KEPT}.", f".{first}.")[:-1]])
                parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)


@contextmanager
def _layers_set(model: nn.Module, attribute: str, value: Any) -> Iterator[None]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    before = [getattr(layer, attribute) for layer in layers]
    try:
        for layer in layers:
            setattr(layer, attribute, value)
        yield
    finally:
        for layer, held in zip(layers, before, strict=True):
            setattr(layer, attribute, held)
