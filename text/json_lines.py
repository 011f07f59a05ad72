"""JSON: whatever a record holds, one line that every reader of JSON takes; and back again; files from elsewhere.

Columns of Parquet hold times, bytes and decimals, and numbers may be none: Python's writer refuses the former and
writes the latter in a way of its own. This file does not know what a record means.
"""

from __future__ import annotations

import json
import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from text.errors import UserError

T = TypeVar("T", list[Any], dict[str, Any])


def plain(value: Any) -> Any:
    """A value as JSON can hold it.

    Returns: the same with dates and times in ISO 8601, decimals as text, digit by digit, bytes in (URL-safe) base64,
        anything else that JSON does not have by its ``str``; a number that is not finite is None.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Integral):  # of numpy, like some numbers below
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=str)


def json_line(record: Any) -> str:
    """A record as one line, its line break included; see `plain`."""
    line = json.dumps(plain(record), ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # half of a character, which only an escape can name
        line = json.dumps(plain(record), allow_nan=False)
    return f"{line}\n"


def read_json_lines(path: Path) -> list[Any]:
    """The records of a file of ours; a line ends where it was ended, whatever separators its texts hold."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def read_json(path: Path, kind: type[T]) -> T:
    """The value of a file that others wrote.

    Args:
        path: the file.
        kind: what it must be, a list or an object (dict).

    Raises:
        UserError: for a file that cannot be read, and for another kind of value.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, kind):
        asked = "list" if kind is list else "object"
        raise UserError(f"{path}: must hold one JSON {asked}, not {type(found).__name__}")
    return found
