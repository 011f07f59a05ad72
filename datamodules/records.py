"""The validated reader: every record that enters the house comes through here.

What comes out are records, each with the place where it stood. A line that breaks its schema is refused with file,
line, field and reason, because the stock readers name neither file nor line and turn wrong types into silent nulls.
This file does not know what any record means, nor how files are opened (datamodules/sources.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from pydantic import BaseModel, Field, create_model

from datamodules.sources import Raw, Source, Sources, content_hash, find_files, name_of, raw_records
from text.errors import DataFormatError
from text.facts.wikitext import articles
from text.record_lines import look, validated
from text.records import Located, TextRecord
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
            ``hub:<id>[:config][@split]``, or a world; or a list of them, one after the other, no file twice.
        model: the pydantic type that each record must fit. Where it has a field `id`, ids must be unique; a record
            without one is known by its 0-based position.
        split: what to ask of a world, or of a hub data set whose split is not written in the source.
        on_error: `skip` leaves bad records out and warns once with their number.

    Raises:
        DataFormatError: up to 20 bad records at once, or a source without any record.
        UserError: a source that is not there, or named twice.
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
    seen = look(raw.content)
    record, problems = validated(raw.content, model, {"renames": names.apply(raw, seen.fields)}, seen)
    return record, [f"{raw.where}: {problem}" for problem in problems]


def _repeated_id(located: Located[R], seen: dict[str, str]) -> list[str]:
    """What is wrong with an id that another record has; ``seen`` remembers where each stood."""
    first = seen.setdefault(located.name, located.where)
    return (
        [] if first == located.where else [f"{located.where}: field 'id': {located.name} is already the id of {first}"]
    )
