"""What feeds, watches or exports a run.

Every class that a config can name is found here by its name, wherever in this folder it is.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from text.public_classes import public_classes

_FOUND = public_classes(Path(__file__).parent, "Callback", "ModelCheckpoint", "ProgressBar")

__all__ = [*_FOUND]


def __getattr__(name: str) -> Any:
    if name not in _FOUND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FOUND[name]), name)
