"""Hyper-parameters as plain values: a checkpoint holds what can be read without running code, however it was made.

From the command line they come as plain values. In Python a module is given objects, and Lightning would pickle them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch.core.mixins import HyperparametersMixin
from lightning.pytorch.utilities.parsing import AttributeDict

ROOMS = ("callbacks", "datamodules", "lm", "losses", "metrics", "modules", "text", "worlds")

LEFT_OUT = object()
"""What stands for a value that no plain one describes: a function, an object that keeps its arguments to itself."""


class PlainHyperparameters(HyperparametersMixin):
    """A module or datamodule whose hyper-parameters are plain values; those that cannot be are left out."""

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """As Lightning's; then every object becomes what a config would say of it."""
        if frame is None and (here := inspect.currentframe()) is not None:
            frame = here.f_back
        super().save_hyperparameters(*args, ignore=ignore, frame=frame, logger=logger)
        described = {name: plain(value) for name, value in self.hparams.items()}
        self._hparams = AttributeDict({name: value for name, value in described.items() if value is not LEFT_OUT})
        self._hparams_initial = copy.deepcopy(self._hparams)


def plain(value: Any) -> Any:
    """A value as a config gives it; an object as ``class_path`` and ``init_args``, `LEFT_OUT` if it has none."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Mapping):
        return _all_or_none({str(key): plain(each) for key, each in value.items()})
    if isinstance(value, list | tuple | Set):
        found = [plain(each) for each in value]
        return LEFT_OUT if any(each is LEFT_OUT for each in found) else found
    if isinstance(value, type) or callable(value):
        return LEFT_OUT
    arguments = _arguments(value)
    if arguments is None or (given := _all_or_none({k: plain(v) for k, v in arguments.items()})) is LEFT_OUT:
        return LEFT_OUT
    return {"class_path": public_name(type(value)), "init_args": given}


def public_name(kind: type) -> str:
    """What notes call a class: one of this project by its name alone, so that files may move; another by its path."""
    ours = kind.__module__.partition(".")[0] in ROOMS
    return kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def _all_or_none(values: dict[str, Any]) -> Any:
    return LEFT_OUT if any(value is LEFT_OUT for value in values.values()) else values


def _arguments(value: Any) -> dict[str, Any] | None:
    """What the constructor of an object was given, as far as the object keeps it under the same names."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    names = [name for name in inspect.signature(type(value)).parameters]
    return {name: getattr(value, name) for name in names} if all(hasattr(value, name) for name in names) else None
