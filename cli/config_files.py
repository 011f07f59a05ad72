"""Config files and values of the command line: what is YAML, what is another file, and what no config can mean.

jsonargparse takes any value that names an existing file for a part of the config, and puts what it reads there in its
place: the text of a corpus instead of its path. It hands lists of nested options on in Python's notation, which YAML
reads otherwise. It has no setting for either, so its reader is wrapped. YAML itself takes the last of two equal keys.
This file does not know which options there are.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cli.jsonargparse_private import NestedArg, read_value, read_values_with
from cli.old_names import renamed
from text.errors import DataFormatError, UserError

YAML = (".yaml", ".yml")
MOST_NESTED = 100  # levels of a config; parsers recurse, and break off at a thousand
NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def as_yaml(value: Any) -> str:
    """A value in one line that YAML reads as the same: JSON, with YAML's escapes for what is not ASCII."""

    def escaped(sign: re.Match[str]) -> str:
        return f"\\u{ord(sign[0]):04x}" if ord(sign[0]) < 2**16 else f"\\U{ord(sign[0]):08x}"

    return NOT_ASCII.sub(escaped, json.dumps(value, ensure_ascii=False))


class _List(list):
    __slots__ = ()
    __str__ = as_yaml


class _Dict(dict):
    __slots__ = ()
    __str__ = as_yaml


def _read_yaml_alone(value: Any, enable_path: bool = True, simple_types: bool = False) -> Any:
    found, file = read_value(value, enable_path and isinstance(value, str) and value.endswith(YAML), simple_types)
    found = renamed(found)
    if isinstance(found, NestedArg) and "." in found.key and not found.key.startswith("dict_kwargs."):
        # the parser one level down is given the `str` of it
        told: dict[type, Callable[[Any], Any]] = {list: _List, dict: _Dict, type(None): lambda _: "null"}
        found = found._replace(val=told.get(type(found.val), lambda value: value)(found.val))
    return found, file


def include_yaml_alone() -> None:
    """From here on a data file on the command line or in a config stays a path, and nested lists what they are."""
    read_values_with(_read_yaml_alone)


def files_given(args: Sequence[str]) -> dict[str, Path]:
    """The files given with --config, as they were written and where they are."""
    files = [after for flag, after in itertools.pairwise(args) if flag in ("-c", "--config")]
    files += [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]
    return {file: Path(file).absolute() for file in files}


def check_config_files(files: Iterable[str | Path]) -> None:
    """Look through config files, and those that they include, before they are parsed.

    Raises:
        UserError: with file and line, for text that is not UTF-8 or no YAML, a config that is no table of options, a
            key that stands twice, a number that is none (``.nan``), or nesting without end.
    """
    waiting, seen, problems = [*map(Path, files)], set[Path](), list[str]()
    given = {*waiting}
    while waiting:
        file = waiting.pop(0)
        if file.resolve() in seen or not file.is_file():
            continue
        seen.add(file.resolve())
        try:
            content = file.read_bytes().decode("utf-8-sig")
            if _depth(content) > MOST_NESTED:
                raise UserError(f"{file}:1: nested in more than {MOST_NESTED} levels")
            root = yaml.compose(content, yaml.CSafeLoader)
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise UserError(f"{file}:{line}: not UTF-8 text: {error.reason} (byte {error.start})") from error
        except yaml.YAMLError as error:
            raise UserError(f"{file}:{_told_by_yaml(error)}") from error
        if file in given and not isinstance(root, yaml.MappingNode):
            holds = "is empty" if root is None else "holds no options"
            raise UserError(f"{file}: this config {holds}: it begins with a name, such as 'model:' or 'trainer:'")
        for node in [] if root is None else _nodes(root):
            line = node.start_mark.line + 1
            if isinstance(node, yaml.MappingNode):
                problems += [f"{file}:{line}: {told}" for line, told in _repeated(node)]
            elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:float" and _is_nan(node.value):
                problems.append(f"{file}:{line}: {node.value} is not a number: no option can mean it")
            elif isinstance(node, yaml.ScalarNode) and node.value.endswith(YAML):
                waiting.append(file.parent / node.value)
    if problems:
        raise DataFormatError(problems)


def _told_by_yaml(error: yaml.YAMLError) -> str:
    """Where and why a text is no YAML."""
    mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = "" if mark is None else f"{mark.line + 1}:"
    return f"{where} not YAML: {why or error}"


def _depth(content: str) -> int:
    deepest = depth = 0
    for event in yaml.parse(content, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
        if deepest > MOST_NESTED:
            break
    return deepest


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """A node and all below it; what is referred to by several is met once."""
    waiting, met = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _repeated(node: yaml.MappingNode) -> Iterator[tuple[int, str]]:
    """The line of every key that stood before, and what to say of it."""
    first: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and (before := first.get(key.value)) is not None:
            yield line, f"'{key.value}' stands twice, first in line {before}, and only one of them can be meant"
        elif isinstance(key, yaml.ScalarNode):
            first[key.value] = line


def _is_nan(text: str) -> bool:
    return text.lower().strip("+-") == ".nan"
