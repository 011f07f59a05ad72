"""Lines of JSON and what is wrong with them: from the bytes of a line to a record, or to its fields and reasons.

Whoever reads records of others reads them so: at the entrance of the house (datamodules/records.py), and where answers
are on record (lm/judging/recorded_answers.py). This file does not know files, nor what a record means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from text.record_shapes import found_instead
from text.suggestions import did_you_mean

R = TypeVar("R", bound=BaseModel)


def numbered_lines(stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, counted from 1."""
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line := line.strip():
            yield number, line


class Look(NamedTuple):
    """What is seen of a record before it is validated: its fields, and what no schema would notice."""

    fields: dict[str, Any]
    problems: list[str]


def look(content: bytes | dict[str, Any]) -> Look:
    """Fields of a record, and keys that stand twice."""
    if isinstance(content, dict):
        return Look(content, [])
    problems = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            problems.append(f"field '{twice}': stands twice, and only one of them can be meant")
        return found

    try:
        fields = json.loads(content, object_pairs_hook=once, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):  # the validation says what is wrong, and where
        return Look({}, [])
    return Look(fields if isinstance(fields, dict) else {}, list(dict.fromkeys(problems)))


def validated(
    content: bytes | dict[str, Any], model: type[R], context: Any = None, seen: Look | None = None
) -> tuple[R | None, list[str]]:
    """The record that a line is, or what is wrong with it.

    Args:
        content: JSON, or what a library made of it.
        model: the pydantic type that it must fit.
        context: for the type.
        seen: what `look` gives of it.
    """
    fields_seen, problems = seen or look(content)
    try:
        if isinstance(content, dict):
            record = model.model_validate(content, context=context)
        else:
            record = model.model_validate_json(content, context=context)
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            what, (name, reason) = "", _explain(detail, model)
            what = f"field '{name}': " if name else ""
            fields.setdefault(what, []).append(reason)
        problems = [f"{what}{'; '.join(dict.fromkeys(reasons))}" for what, reasons in fields.items()]
        details = error.errors(include_url=False)
        lacking = [
            str(detail["loc"][0]) for detail in details if detail["type"] == "missing" and len(detail["loc"]) == 1
        ]
        if lacking:
            problems[-1] += found_instead(fields_seen, lacking, hasattr(model, "renamed"))
        return None, problems
    return (None if problems else record), problems


def _explain(detail: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Name of the top-level field ('' for the record as a whole) and what is wrong with it."""
    name, *inner = detail["loc"] or ("",)
    names = [str(field.validation_alias or key) for key, field in model.model_fields.items()]
    match detail["type"]:
        case "json_invalid":
            reason, _, column = detail["ctx"]["error"].partition(" at line 1 column ")
            return "", f"column {column or '?'}: invalid JSON: {reason}"
        case "missing" if not inner:
            needed = [n for n, f in zip(names, model.model_fields.values(), strict=True) if f.is_required()]
            article = "An" if model.__name__[0] in "AEIOU" else "A"
            return name, f"missing. {article} {model.__name__} needs {' and '.join(map(repr, needed))}"
        case "extra_forbidden" if not inner:
            return name, "unknown field." + (did_you_mean(name, names) or f" Known: {', '.join(names)}")
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in inner if key not in ("int", "str"))
    plain = {"missing": "missing", "extra_forbidden": "unknown field"}
    reason = plain.get(detail["type"], detail["msg"].removeprefix("Input "))
    if detail["type"].endswith(("_type", "_error")):
        reason += f", not {detail['input']!r:.60}"
    return name, f"{place.lstrip('.')}: {reason}" if place else reason
