"""The validated reader: every record that enters the house comes through here.

A source is a file, a glob, a hub data set or a world; what comes out are records, each with the place where it stood. A
line that breaks its schema is refused with file, line, field and reason, because the stock readers name neither file
nor line and turn wrong types into silent nulls. This file does not know what any record means.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import re
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from pydantic import BaseModel, Field, ValidationError, create_model

from text.errors import DataFormatError, UserError
from text.records import Located, TextRecord
from text.suggestions import did_you_mean, missing_file
from text.wikitext import articles
from worlds import World

Source = str | World
Sources = Source | list[Source]
R = TypeVar("R", bound=BaseModel)
Raw = tuple[str, bytes | str | dict[str, Any]]

Documents = Literal["file", "line", "wikitext"]
TEXT_SUFFIXES = (".txt", ".text", ".md", ".raw", ".tokens")

RECORDS_IN_JSON = "a .json file holds one list of records, or an object of them by id (one record a line is .jsonl)"

SPLITS = {"val": "validation", "knowledge": "train"}  # what the hub calls our splits, where it differs


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
    seen: dict[str, Located[R]] = {}
    row = good = 0
    try:
        for row, (where, raw) in enumerate(_raw(source, split), 1):
            record, bad = _validated(where, raw, model)
            if record is not None:
                located = Located(record, where, row - 1)
                bad = _repeated_id(located, seen)
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


def content_hash(source: Source, split: str = "train") -> str:
    """Changes whenever the content of a source does; for a hub data set, only when it is named anew."""
    digest = hashlib.sha256()
    if isinstance(source, World):
        digest.update(json.dumps(_made_up(source, split), sort_keys=True).encode())
    elif source.startswith("hub:"):
        digest.update(f"{source} {split}".encode())
    else:
        for path in find_files(source):
            with open(path, "rb") as stream:
                digest.update(Path(path).suffix.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def name_of(source: Sources) -> str:
    """A source as messages name it."""
    if isinstance(source, list):
        return ", ".join(map(name_of, source))
    return source if isinstance(source, str) else type(source).__name__


def find_files(source: str) -> list[str]:
    """The files that a path or glob stands for, sorted.

    Raises:
        UserError: if there is none, with the names that come near.
    """
    name = os.path.expanduser(source)  # keeps the rest as it was given: that is how messages name it
    path = Path(name)
    if path.is_file():
        return [name]
    if glob.has_magic(name):
        if found := sorted(match for match in glob.glob(name, recursive=True) if Path(match).is_file()):
            return found
        raise UserError(f"no file matches '{source}'")
    if path.is_dir():
        raise UserError(f"'{source}' is a folder: give a file in it, or a glob such as '{source.rstrip('/')}/*.jsonl'")
    raise UserError(missing_file(source if name == source else path))


# --- from a source to raw records -------------------------------------------------------------------------------------


def _raw(source: Sources, split: str) -> Iterator[Raw]:
    if isinstance(source, list):
        for one in source:
            yield from _raw(one, split)
    elif isinstance(source, World):
        for number, record in enumerate(_made_up(source, split), 1):
            yield f"{name_of(source)}:{number}", record
    elif source.startswith("hub:"):
        yield from _hub(source, split)
    else:
        for path in find_files(source):
            yield from _file(path)


def _made_up(world: World, split: str) -> list[dict[str, Any]]:
    try:
        return world.records(split)
    except ValueError as error:
        raise UserError(f"{name_of(world)}: {error}") from error


def _file(path: str) -> Iterator[Raw]:
    kind = Path(path.removesuffix(".gz")).suffix
    if kind == ".parquet":
        yield from _rows(path, "parquet", data_files=path, split="train")
        return
    if kind not in (".jsonl", ".json"):
        raise UserError(f"'{path}': records are read from .jsonl, .json and .parquet, not from '{kind}'")
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as stream:
        try:
            yield from _json_lines(path, stream) if kind == ".jsonl" else _json_items(path, stream.read())
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataFormatError([f"{path}:1: not a whole gzip file: {error}"]) from error


def _json_lines(path: str, stream: Any) -> Iterator[Raw]:
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line := line.strip():
            yield f"{path}:{number}", line


def _json_items(path: str, content: bytes) -> Iterator[Raw]:
    """The items of one JSON list, or the values of one object of objects, as text.

    Each comes with the line where it begins (a whole-file parser would not tell). The names of an object are not looked
    at: where files are keyed by id, records have it too.
    """
    text = content.decode("utf-8-sig", "surrogateescape")
    breaks = [match.start() for match in re.finditer("\n", text)]

    def line(at: int) -> int:
        return bisect(breaks, at) + 1

    def broken(at: int, what: str) -> DataFormatError:
        return DataFormatError([f"{path}:{line(at)}: invalid JSON: {what}"])

    def value(at: int) -> tuple[Any, int]:
        try:
            return json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise broken(getattr(error, "pos", at), getattr(error, "msg", str(error))) from error

    at = _skip_space(text, 0)
    if at == len(text):
        return
    keyed, close = text[at] == "{", "}" if text[at] == "{" else "]"
    if text[at] not in "[{":
        raise broken(at, RECORDS_IN_JSON)
    at = _skip_space(text, at + 1)
    while text[at : at + 1] != close:
        if keyed:
            colon = _skip_space(text, value(at)[1])
            at = _skip_space(text, colon + 1)
            if text[colon : colon + 1] != ":" or text[at : at + 1] != "{":
                raise broken(at, RECORDS_IN_JSON)
        _, end = value(at)
        yield f"{path}:{line(at)}", text[at:end].encode("utf-8", "surrogateescape")
        at = _skip_space(text, end)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != close:
            raise broken(at, f"expected ',' or '{close}'")
    if text[at + 1 :].strip():
        raise broken(_skip_space(text, at + 1), f"text after the end of the {'object' if keyed else 'list'}")


def _skip_space(text: str, at: int) -> int:
    return re.compile(r"\s*").match(text, at).end()  # type: ignore[union-attr]


def _hub(source: str, split: str) -> Iterator[Raw]:
    found = re.fullmatch(r"hub:(?P<id>[^:@]+)(:(?P<config>[^@]+))?(@(?P<split>.+))?", source)
    if not found:
        raise UserError(f"'{source}': a hub data set is written hub:<owner/name>[:config][@split]")
    yield from _rows(source, found["id"], found["config"], split=found["split"] or SPLITS.get(split, split))


def _rows(name: str, *args: Any, **kwargs: Any) -> Iterator[Raw]:
    """The rows of anything that `datasets` opens, streamed; its nulls are the fields that a record does not have."""
    import datasets  # costs seconds

    try:
        rows = datasets.load_dataset(*args, streaming=True, **kwargs)
    except Exception as error:  # every kind of library and network error
        raise UserError(f"cannot open '{name}': {type(error).__name__}: {error}") from error
    for number, row in enumerate(rows, 1):
        yield f"{name}:{number}", {key: value for key, value in row.items() if value is not None}


# --- from raw records to records, or to what is wrong with them -------------------------------------------------------


def _validated(where: str, raw: bytes | str | dict[str, Any], model: type[R]) -> tuple[R | None, list[str]]:
    try:
        return model.model_validate(raw) if isinstance(raw, dict) else model.model_validate_json(raw), []
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            what, (name, reason) = "", _explain(detail, model)
            what = f"field '{name}': " if name else ""
            fields.setdefault(what, []).append(reason)
        return None, [f"{where}: {what}{'; '.join(dict.fromkeys(reasons))}" for what, reasons in fields.items()]


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
            return name, f"missing. A {model.__name__} needs {' and '.join(map(repr, needed))}"
        case "extra_forbidden" if not inner:
            return name, "unknown field." + (did_you_mean(name, names) or f" Known: {', '.join(names)}")
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in inner if key not in ("int", "str"))
    plain = {"missing": "missing", "extra_forbidden": "unknown field"}
    reason = plain.get(detail["type"], detail["msg"].removeprefix("Input "))
    if detail["type"].endswith(("_type", "_error")):
        reason += f", not {detail['input']!r:.60}"
    return name, f"{place.lstrip('.')}: {reason}" if place else reason


def _repeated_id(located: Located[R], seen: dict[str, Located[R]]) -> list[str]:
    if "id" not in type(located.record).model_fields:
        return []
    first = seen.setdefault(located.name, located)
    return (
        [] if first is located else [f"{located.where}: field 'id': {located.name} is already the id of {first.where}"]
    )
