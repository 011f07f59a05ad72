"""Which values of a config are other config files: those that end in .yaml or .yml, and no others.

jsonargparse takes any value that names an existing file for a part of the config, and puts what it reads there in its
place: the text of a corpus instead of its path. It has no setting for that, so its reader is wrapped.
"""

from __future__ import annotations

from typing import Any

from jsonargparse import _typehints

YAML = (".yaml", ".yml")
_read = _typehints.parse_value_or_config


def _read_yaml_alone(value: Any, enable_path: bool = True, simple_types: bool = False) -> Any:
    return _read(value, enable_path and isinstance(value, str) and value.endswith(YAML), simple_types)


def include_yaml_alone() -> None:
    """From here on a data file on the command line or in a config stays a path."""
    _typehints.parse_value_or_config = _read_yaml_alone
