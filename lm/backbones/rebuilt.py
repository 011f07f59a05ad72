"""The backbone that a checkpoint noted, by its public name, as far as a file may say such a thing.

Knows which kinds there are, and where their classes lie today. A class that is not of this project is known if whoever
opens the checkpoint imported it. Files come from others: what only the user of today can say is a `Grant`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import Backbone
from lm.files.hyperparameters import public_name
from lm.files.names import is_local
from text.errors import UserError

BASE = "--base (export.py), or base (TrainedBackbone)"
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
    "PretrainedVision": "lm.vision.encoders",
    "ScratchVision": "lm.vision.encoders",
}
"""Where the backbones of this project are: imported when a checkpoint names one."""


@dataclass(frozen=True)
class Grant:
    """What today's user says of a checkpoint, because it cannot say so of itself.

    Args:
        trust_remote_code: run Python code that comes with the model that it began with, if the run did.
        bases: what it began with, wherever that lies today: a folder, a run, or a hub id; then what that began with.
    """

    trust_remote_code: bool = False
    bases: tuple[str, ...] = ()


NOTHING = Grant()


def rebuild_backbone(saved: dict[str, Any], grant: Grant = NOTHING) -> Backbone:
    """The backbone that ``Backbone.plain`` described; of classes that are already imported, or of this project.

    A file says which model it belongs to. That code is run is for whoever opens the file to say, today. Where on this
    disk that model lies it may say if it knows the files there: else whoever wrote it could have any model of this
    machine mixed into what comes of it.

    Args:
        saved: what `describe` gives.
        grant: what today's user says of it.

    Raises:
        UserError: if the notes describe no backbone, ask to run code without leave, or name files that they do not
            know.
    """
    name, noted = str(saved["backbone"].get("class_path")), saved["backbone"].get("init_args")
    kind = noted_kind(name)
    if kind is None or not isinstance(noted, dict):
        raise UserError(f"the checkpoint's backbone {name} is not known; import the module that defines it")
    given = dict(noted)
    if given.get("trust_remote_code") and not grant.trust_remote_code:
        raise UserError(
            f"the checkpoint asks to run Python code that comes with '{given.get('name_or_path')}'. If you trust that "
            "code, say so yourself: --trust_remote_code (export.py), or trust_remote_code: true (TrainedBackbone)"
        )
    for key, part in {"lora": LoRA, "quantization": Quantization}.items():
        if given.get(key):
            given[key] = _rebuilt(part, given[key], name)
    unnamed = _put_in(grant.bases, given, kind.begins_with)
    backbone = _rebuilt(kind, given, name)
    known = saved["fingerprint"].get("files_sha256")
    if unnamed and (known is None or known != backbone.files_sha256()):
        raise UserError(
            f"the checkpoint says that it began with '{unnamed[0]}', but not with the files that are there today. If "
            f"that is the right model all the same, say so yourself: {BASE}"
        )
    return backbone


def _put_in(bases: Sequence[str], given: dict[str, Any], begins_with: Sequence[str]) -> list[str]:
    """Put what today's user names into the arguments of a backbone; the paths that nobody but its notes names.

    Raises:
        UserError: if more is named than it begins with, or such a path leads nowhere.
    """
    options = [option for option in begins_with if given.get(option) is not None]
    given |= dict(zip(options, bases, strict=False))
    beneath = list(bases[len(options) :])
    if "path" in options:  # a run, which began with something itself
        given["base"] = beneath or None
    elif beneath:
        raise UserError(f"base: '{beneath[0]}' is one too many: the checkpoint began with {len(options)} of them")
    unnamed = [str(given[option]) for option in options[len(bases) :] if is_local(str(given[option]))]
    for path in unnamed:
        if not Path(path).expanduser().exists():
            raise UserError(f"the checkpoint began with '{path}', which does not exist; say where it is: {BASE}")
    return unnamed


def noted_kind(name: str) -> Any:
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
