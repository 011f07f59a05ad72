"""The backbone that a checkpoint noted, by its public name: where its class lies today is looked up here.

Knows which kinds there are. A class that is not of this project is known if whoever opens the checkpoint imported it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import Backbone
from lm.files.hyperparameters import public_name
from text.errors import UserError

KINDS = {
    "PretrainedBackbone": "lm.backbones.backbone",
    "ScratchBackbone": "lm.backbones.backbone",
    "TrainedBackbone": "lm.backbones.run_backbone",
    "PretrainedEncoder": "lm.backbones.encoder",
    "ScratchEncoder": "lm.backbones.encoder",
    "PretrainedReward": "lm.backbones.reward_backbone",
    "ScratchReward": "lm.backbones.reward_backbone",
    "TrainedReward": "lm.backbones.reward_backbone",
    "MergedBackbone": "lm.merging.merged_backbone",
}
"""Where the backbones of this project are: imported when a checkpoint names one."""


def rebuild_backbone(plain: dict[str, Any], trust_remote_code: bool = False) -> Backbone:
    """The backbone that ``Backbone.plain`` described; of this project, or of a class that is already imported.

    A file says which model it belongs to. That code is run is for whoever opens the file to say, today.

    Args:
        plain: what a checkpoint notes.
        trust_remote_code: run Python code that comes with the weights, if the run did.

    Raises:
        UserError: if the notes describe no backbone, or ask to run code without leave.
    """
    name, noted = str(plain.get("class_path")), plain.get("init_args")
    kind = _kind(name)
    if kind is None or not isinstance(noted, dict):
        raise UserError(f"the checkpoint's backbone {name} is not known; import the module that defines it")
    given = dict(noted)
    if given.get("trust_remote_code") and not trust_remote_code:
        raise UserError(
            f"the checkpoint asks to run Python code that comes with '{given.get('name_or_path')}'. If you trust that "
            "code, say so yourself: --trust_remote_code (export.py), or trust_remote_code: true (TrainedBackbone)"
        )
    for key, part in {"lora": LoRA, "quantization": Quantization}.items():
        if given.get(key):
            given[key] = _rebuilt(part, given[key], name)
    return _rebuilt(kind, given, name)


def _kind(name: str) -> Any:
    """The class of a noted name; runs from before names were public noted ``lm.<file>.<class>``."""
    short = name.rpartition(".")[2]
    if short in KINDS and name.partition(".")[0] in (short, "lm"):
        return getattr(importlib.import_module(KINDS[short]), short)
    return {public_name(kind): kind for kind in _descendants(Backbone)}.get(name)


def _rebuilt(kind: Any, given: Any, name: str) -> Any:
    """An object of plain values: whatever else a file holds is refused by the constructor, or here."""
    try:
        return kind(**given)
    except (AttributeError, TypeError) as error:
        raise UserError(f"the checkpoint's backbone {name} cannot be rebuilt from its notes: {error}") from error


def _descendants(kind: Any) -> Iterator[Any]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
