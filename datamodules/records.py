"""The validated reader: every record that enters the house comes through here.

What comes out are records, each with the place where it stood. A line that breaks its schema is refused with file,
line, field and reason, because the stock readers name neither file nor line and turn wrong types into silent nulls.
This file does not know what any record means, nor how files are opened (datamodules/sources.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from pydantic import BaseModel, Field, ValidationError, create_model

from datamodules.sources import Raw, Source, Sources, content_hash, find_files, name_of, raw_records
from text.errors import DataFormatError
from text.facts.wikitext import articles
from text.record_shapes import found_instead
from text.records import Located, TextRecord
from text.suggestions import did_you_mean
from worlds import World

__all__ = [
    "Documents",
    "Source",
    "Sources",
    "content_hash",
    "find_files",
    "iter_records",
    "iter_texts",
    "name_of",
    "read_records",
]

R = TypeVar("R", bound=BaseModel)

Documents = Literal["file", "line", "wikitext"]
TEXT_SUFFIXES = (".txt", ".text", ".md", ".raw", ".tokens")


def read_records(
    source: Sources, model: type[R], split: str = "train", *, on_error: Literal["raise", "skip"] = "raise"
) -> list[Located[R]]:
    """All records of a source; see `iter_records`."""
    return list(iter_records(source, model, split, on_error=on_error))


def iter_records(
    source: Sources, model: type[R], split: str = "train", *, on_error: Literal["raise", "skip"] = "raise"
) -> Iterator[Located[R]]:
    """The records of a source one by one, so that a corpus need not fit in memory.

    Args:
        source: a path or glob (.jsonl, .json with one list, or one object by id; .parquet; the first two also .gz),
            ``hub:<id>[:config][@split]``, or a world; or a list of them, one after the other.
        model: the pydantic type that each record must fit. Where it has a field `id`, ids must be unique; a record
            without one is known by its 0-based position.
        split: what to ask of a world, or of a hub data set whose split is not written in the source.
        on_error: `skip` leaves bad records out and warns once with their number.

    Raises:
        DataFormatError: up to 20 bad records at once, or a source without any record.
        UserError: a source that is not there.
    """
    problems: list[str] = []
    seen: dict[str, str] | None = {} if "id" in model.model_fields else None
    names = _Names(getattr(model, "renamed", {}))
    row = good = 0
    try:
        for row, raw in enumerate(raw_records(source, split), 1):
            record, bad = _validated(raw, model, names)
            if record is not None:
                located = Located(record, raw.where, row - 1)
                bad = [] if seen is None else _repeated_id(located, seen)
            if record is not None and not bad:
                good += 1
                yield located
            problems += bad
            if on_error == "raise" and len(problems) >= DataFormatError.SHOWN:
                break
    except DataFormatError as error:  # the file itself ends badly
        problems += error.problems
    if problems and on_error == "raise":
        raise DataFormatError(problems)
    if problems:
        rank_zero_warn(f"{name_of(source)}: {row - good} of {row} records left out; the first: {problems[0]}")
    if not good:
        raise DataFormatError(problems or [f"{name_of(source)}:1: empty: at least one {model.__name__} is needed"])


def iter_texts(
    source: Source, split: str = "train", *, documents: Documents = "file", column: str = "text"
) -> Iterator[str]:
    """The documents of a corpus one by one.

    Args:
        source: text files (.txt and the like, UTF-8), or anything that has records.
        split: see `iter_records`.
        documents: what is one document of a text file: the whole `file`, a `line` that is not blank, or an article of a
            `wikitext` file, whose word-tokenisation is undone. A record is one document.
        column: the field that holds the text of a record.

    Raises:
        DataFormatError: see `iter_records`; or text that is not UTF-8.
        UserError: a source that is not there.
    """
    if isinstance(source, World) or Path(source).suffix not in TEXT_SUFFIXES:
        # Under another name the field is checked, and complained about, by that name.
        text: Any = (str, Field(validation_alias=column))
        model = create_model("TextRecord", __base__=TextRecord, text=text)
        yield from (located.record.text for located in iter_records(source, model, split))
        return
    for path in find_files(source):
        try:
            with open(path, encoding="utf-8-sig") as stream:
                match documents:
                    case "file":
                        yield stream.read()
                    case "line":
                        yield from (line.rstrip("\n") for line in stream if line.strip())
                    case "wikitext":
                        yield from articles(stream)
        except UnicodeDecodeError as error:
            raise DataFormatError([f"{path}:1: not UTF-8 text: {error}"]) from error


# --- from raw records to records, or to what is wrong with them -------------------------------------------------------


class _Look(NamedTuple):
    """What is seen of a record before it is validated: its fields, and what no schema would notice."""

    fields: dict[str, Any]
    problems: list[str]


def _look(content: bytes | dict[str, Any]) -> _Look:
    """Fields of a record, and keys that stand twice."""
    if isinstance(content, dict):
        return _Look(content, [])
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
        return _Look({}, [])
    return _Look(fields if isinstance(fields, dict) else {}, list(dict.fromkeys(problems)))


class _Names:
    """In which files records go by the names of a `field_map`: those whose first record has one of them.

    Args:
        renamed: their name -> ours.
    """

    def __init__(self, renamed: dict[str, str]):
        self.renamed, self.file, self.applies = renamed, "", False

    def apply(self, raw: Raw, fields: dict[str, Any]) -> bool:
        """Whether this record goes by them."""
        has = any(name in fields for name in self.renamed)
        if self.renamed and raw.name != self.file:
            self.file, self.applies = raw.name, has
            if not has:
                told = ", ".join(f"'{name}'" for name in self.renamed)
                rank_zero_warn(f"{raw.where}: no field {told} of field_map: this file is read by its own names")
        return has or self.applies


def _validated(raw: Raw, model: type[R], names: _Names) -> tuple[R | None, list[str]]:
    content, (seen, problems) = raw.content, _look(raw.content)
    context = {"renames": names.apply(raw, seen)}
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
            problems[-1] += found_instead(seen, lacking, hasattr(model, "renamed"))
        return None, [f"{raw.where}: {problem}" for problem in problems]
    return (None if problems else record), [f"{raw.where}: {problem}" for problem in problems]


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


def _repeated_id(located: Located[R], seen: dict[str, str]) -> list[str]:
    """What is wrong with an id that another record has; ``seen`` remembers where each stood."""
    first = seen.setdefault(located.name, located.where)
    return (
        [] if first == located.where else [f"{located.where}: field 'id': {located.name} is already the id of {first}"]
    )
