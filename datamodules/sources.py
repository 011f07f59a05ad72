"""What data can be: a file, a glob, a hub data set, a world, or several of them; and the raw records in them.

A raw record is a line of JSON or a dictionary, with the place where it stood. Whatever goes wrong while a source is
read is an error of the source, named with it. This file does not know what a record must look like
(datamodules/records.py).
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import re
import zlib
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from text.errors import DataFormatError, UserError
from text.record_lines import numbered_lines
from text.suggestions import missing_file
from worlds import World

Source = str | World
Sources = Source | list[Source]

RECORDS_IN_JSON = "a .json file holds one list of records, or an object of them by id (one record a line is .jsonl)"

SPLITS = {"val": "validation", "knowledge": "train"}  # what the hub calls our splits, where it differs
TOGETHER = 1000  # rows of a Parquet file that are decoded at once


class Raw(NamedTuple):
    """A record as it stands.

    Args:
        name: of its file, or of what else it is from.
        line: counted from 1.
        content: JSON, or what a library made of it.
        number: among the records that begin in this line, from 1.
    """

    name: str
    line: int
    content: bytes | dict[str, Any]
    number: int = 1

    @property
    def where(self) -> str:
        """``<file>:<line>``, of a further record in the line ``<file>:<line> (<number>)``: no two are in one place."""
        return f"{self.name}:{self.line}" + (f" ({self.number})" if self.number > 1 else "")


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


def raw_records(source: Sources, split: str) -> Iterator[Raw]:
    """The records of a source as they stand, one by one; a field that is null in a table is not there.

    Args:
        source: see `datamodules.records.iter_records`.
        split: what to ask of a world, or of a hub data set whose split is not written in the source.

    Raises:
        UserError: for a source that is not there, cannot be opened, breaks off, or is named twice.
        DataFormatError: for a file of JSON or gzip that is broken.
    """
    if isinstance(source, list):
        yield from _told_apart(source, split)
    elif isinstance(source, World):
        for number, record in enumerate(_made_up(source, split), 1):
            yield Raw(name_of(source), number, record)
    elif source.startswith("hub:"):
        yield from _told(source, _hub(source, split))
    else:
        for path in find_files(source):
            yield from _file(path)


def _told_apart(sources: list[Source], split: str) -> Iterator[Raw]:
    """The records of several sources; a second world of one class, and a third, have their number in the name."""
    met: Counter[str] = Counter()
    for source in sources:
        for name, records in groupby(raw_records(source, split), attrgetter("name")):
            met[name] += 1
            if met[name] == 1:
                yield from records
            elif isinstance(source, World):
                yield from (raw._replace(name=f"{name} {met[name]}") for raw in records)
            else:
                raise UserError(f"'{name}' is read twice: name it once (a glob may hold it too)")


def _made_up(world: World, split: str) -> list[dict[str, Any]]:
    try:
        return world.records(split)
    except ValueError as error:
        raise UserError(f"{name_of(world)}: {error}") from error


def _file(path: str) -> Iterator[Raw]:
    kind = Path(path.removesuffix(".gz")).suffix
    if kind == ".parquet":
        yield from _told(path, _parquet(path))
        return
    if kind not in (".jsonl", ".json"):
        raise UserError(f"'{path}': records are read from .jsonl, .json and .parquet, not from '{kind}'")
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as stream:
        try:
            yield from _json_lines(path, stream) if kind == ".jsonl" else _json_items(path, stream.read())
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataFormatError([f"{path}:1: not a whole gzip file: {error}"]) from error


def _json_lines(path: str, stream: Any) -> Iterator[Raw]:
    for number, line in numbered_lines(stream):
        yield Raw(path, number, line)


def _told(name: str, rows: Iterator[dict[str, Any]]) -> Iterator[Raw]:
    """Rows of a table with their places; what a library or a network does wrong becomes an error of the source."""
    number = 0
    while True:
        try:
            row = next(rows, None)
        except UserError:
            raise
        except Exception as error:  # of every kind
            what = f"broke off after row {number}" if number else "cannot be opened"
            raise UserError(f"{name}: {what}: {type(error).__name__}: {error}") from error
        if row is None:
            return
        number += 1
        yield Raw(name, number, {key: value for key, value in row.items() if value is not None})


def _parquet(path: str) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet  # `datasets` takes the path for a pattern

    with open(path, "rb") as stream:
        file = parquet.ParquetFile(stream)
        names = file.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataFormatError([f"{path}:1: field '{twice[0]}': there are {names.count(twice[0])} columns of it"])
        for batch in file.iter_batches(TOGETHER):
            yield from batch.to_pylist()


def _hub(source: str, split: str) -> Iterator[dict[str, Any]]:
    found = re.fullmatch(r"hub:(?P<id>[^:@]+)(:(?P<config>[^@]+))?(@(?P<split>.+))?", source)
    if not found:
        raise UserError(f"'{source}': a hub data set is written hub:<owner/name>[:config][@split]")
    import datasets  # costs seconds

    split = found["split"] or SPLITS.get(split, split)
    yield from datasets.load_dataset(found["id"], found["config"], split=split, streaming=True)


def _json_items(path: str, content: bytes) -> Iterator[Raw]:
    """The items of one JSON list, or the values of one object of objects, as text.

    Each comes with the line where it begins (a whole-file parser would not tell). Of the names of an object only their
    being different is looked at: where files are keyed by id, records have it too.
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
    at, names, lines = _skip_space(text, at + 1), set[str](), Counter[int]()
    while text[at : at + 1] != close:
        if keyed:
            begin, (name, end) = at, value(at)
            if name in names:
                raise broken(begin, f"{name!r:.60} stands twice")
            names.add(name)
            colon = _skip_space(text, end)
            at = _skip_space(text, colon + 1)
            if text[colon : colon + 1] != ":" or text[at : at + 1] != "{":
                raise broken(at, RECORDS_IN_JSON)
        _, end = value(at)
        place = line(at)
        lines[place] += 1
        yield Raw(path, place, text[at:end].encode("utf-8", "surrogateescape"), lines[place])
        at = _skip_space(text, end)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != close:
            raise broken(at, f"expected ',' or '{close}'")
    if text[at + 1 :].strip():
        raise broken(_skip_space(text, at + 1), f"text after the end of the {'object' if keyed else 'list'}")


def _skip_space(text: str, at: int) -> int:
    return re.compile(r"\s*").match(text, at).end()  # type: ignore[union-attr]
