"""What a checkpoint holds of each part of its module (lm/backbones/parts.py): the notes about it, and its weights.

Knows the layout of a checkpoint's notes and the names of its weights; it opens no file.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from text.errors import UserError
from text.suggestions import did_you_mean

MAIN = "model"
"""The part that every module has; its notes stand at the top, where older checkpoints have those of their only one."""

UNNOTED = ("projection", "log_temperature", "reward_mean", "reward_std", "reference_model")
"""What checkpoints may hold beside the model that were written before parts were noted."""


def part_name(weight: str) -> str:
    """The part that a weight or buffer of a module belongs to, by its name in the module."""
    return weight.partition(".")[0]


def notes_of_parts(saved: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The notes about each part, by its name.

    Args:
        saved: what a `BackboneModule` notes in a checkpoint.
    """
    own = {key: value for key, value in saved.items() if key not in ("parts", "beside")}
    return {MAIN: own} | saved.get("parts", {})


def notes_of(saved: dict[str, Any], part: str) -> dict[str, Any]:
    """The notes about one part, as if it were the model of a module that has no other.

    Raises:
        UserError: if there is no such part.
    """
    if part == MAIN:
        return saved
    noted = notes_of_parts(saved)
    if part not in noted:
        raise UserError(f"the run has no part '{part}'; it has {', '.join(noted)}." + did_you_mean(part, noted))
    shared = {key: saved[key] for key in ("method", "tokenizer_sha256", "tokens")}
    return shared | noted[part] | {"part": part, "parts": {}}


def weights_of(checkpoint: dict[str, Any], part: str) -> dict[str, Tensor]:
    """The weights of a part, by their names in the module.

    Args:
        checkpoint: of `open_checkpoint`.
        part: its name.

    Raises:
        UserError: if the checkpoint holds weights of a part that it does not note.
    """
    saved, state = checkpoint["language_model"], checkpoint["state_dict"]
    known = {*notes_of_parts(saved), *saved.get("beside", UNNOTED)}
    if unknown := sorted(name for name in state if part_name(name) not in known):
        raise UserError(
            f"the checkpoint holds {len(unknown)} weights of no part that it notes, such as {unknown[0]}; "
            f"its parts are {', '.join(sorted(known))}"
        )
    return {name: weight for name, weight in state.items() if part_name(name) == part}


def part_of(checkpoint: dict[str, Any], part: str) -> dict[str, Any]:
    """A checkpoint as if one of its parts were the model of a module that has no other.

    Args:
        checkpoint: of `open_checkpoint`.
        part: its name.

    Raises:
        UserError: if there is no such part.
    """
    if part == MAIN:
        return checkpoint
    notes = notes_of(checkpoint["language_model"], part)
    own = {MAIN + name.removeprefix(part): weight for name, weight in weights_of(checkpoint, part).items()}
    return checkpoint | {"language_model": notes, "state_dict": own}
