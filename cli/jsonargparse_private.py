"""What we take of jsonargparse that it does not promise: how it reads values, its options, the classes that it knows.

No other file reaches into it; tests/cli/test_jsonargparse_private.py says what each name is taken for in the version
that is pinned. This file does not know which options there are, nor what is made of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

from jsonargparse import ArgumentParser, _completions_jsonschema, _typehints
from jsonargparse._typehints import NestedArg  # of an option within the value of another: its dotted key, its val

__all__ = ["NestedArg", "option_names", "read_value", "read_values_with", "schema_of", "value_types"]

read_value = _typehints.parse_value_or_config
"""jsonargparse's reader: ``(value, enable_path, simple_types)`` to what was read, and the file it was read from."""


def read_values_with(reader: Callable[..., tuple[Any, Any]]) -> None:
    """From here on every parser reads the values of its options with ``reader`` in place of `read_value`."""
    _typehints.parse_value_or_config = reader


def value_types(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The type of the value of each option, by name; None for options that are no values."""
    return {action.dest: getattr(action, "_typehint", None) for action in parser._actions}


def option_names(parser: argparse.ArgumentParser) -> set[str]:
    """Names of the options of a parser and of its subcommands."""
    verbs = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    parsers = [parser, *(each for choices in verbs for each in choices.values())]
    return {action.dest for each in parsers for action in each._actions}


def schema_of(parser: ArgumentParser, packages: tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of a config; of the classes that are in memory it names those that packages of ours define."""
    all_paths = _completions_jsonschema.get_all_subclass_paths
    prefixes = tuple(f"{package}." for package in packages)

    def known(cls: type, **options: Any) -> list[str]:
        paths = [] if issubclass(cls, type) else all_paths(cls, **options)
        return sorted(path for path in paths if path.startswith(prefixes))

    with mock.patch.object(_completions_jsonschema, "get_all_subclass_paths", known):
        return json.loads(parser.get_completion_script("jsonschema"))
