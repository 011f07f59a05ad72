"""A JSON schema by which editors complete and check configs, made small and fit for files that compose.

jsonargparse describes every class that Python has loaded. Here only those remain that a config would name. This file
knows JSON schemas. It does not know the parser.
"""

from __future__ import annotations

import re
from typing import Any

ADDRESS = re.compile(r"<.* at 0x[0-9a-f]+>")
APPENDED = {"^[a-z_]+\\+$": {"description": "appends to the list of an earlier file"}}


def compact(schema: dict[str, Any], short_names: dict[str, str]) -> dict[str, Any]:
    """The schema of one file among several that compose.

    Args:
        schema: of a complete config.
        short_names: short name by import path, for classes that a config may name without their package.
    """
    simple = simplified(schema, short_names)
    groups = simple["properties"]
    groups = {key: value for key, value in groups.items() if key.isidentifier()}
    for key, value in groups.items():
        if value.get("type") == "object":  # a group may be the name of a file that holds it
            value["patternProperties"] = APPENDED
            groups[key] = {"anyOf": [{"type": "string"}, value]}
    return {**simple, "properties": groups, "$defs": reachable(groups, simple["$defs"])}


def simplified(part: Any, short_names: dict[str, str]) -> Any:
    """Without what differs from process to process, and with nothing required: another file may say it."""
    if isinstance(part, list):
        return [simplified(entry, short_names) for entry in part]
    if not isinstance(part, dict):
        return part
    kept = {
        key: simplified(value, short_names)
        for key, value in part.items()
        if not (key == "required" and isinstance(value, list)) and not (key == "$schema" and isinstance(value, dict))
    }
    if ADDRESS.search(str(kept.get("default"))):
        del kept["default"]
    if (path := kept.get("const")) in short_names:
        return {"enum": [short_names[path], path]}
    return kept


def reachable(part: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that ``part`` refers to, directly or not."""
    found: dict[str, Any] = {}
    waiting = [part]
    while waiting:
        for name in re.findall(r"#/\$defs/(\w+)", str(waiting.pop())):
            if name not in found:
                found[name] = definitions[name]
                waiting.append(definitions[name])
    return dict(sorted(found.items()))
