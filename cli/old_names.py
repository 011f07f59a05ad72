"""Class paths of earlier runs: a class is named by its public name, wherever its file was when a config was saved.

Knows paths of this project. It does not know which classes there are.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

PATH = re.compile(r"(?:callbacks|datamodules|lm|losses|metrics|modules|text|worlds)(?:\.[a-z]\w*)+\.([A-Z]\w*)")


def renamed(value: Any) -> Any:
    """A value of a config in which paths to files that are gone have become the names of their classes.

    ``lm.schedules.Warmup`` becomes ``Warmup``; a path that can be imported stays as it is.
    """
    if isinstance(value, dict):
        return {key: renamed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part) for part in value]
    if not isinstance(value, str) or (path := PATH.fullmatch(value)) is None or _is_there(value.rpartition(".")[0]):
        return value
    return path[1]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
