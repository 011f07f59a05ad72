"""Lines of JSON: whatever a record holds, one line that every reader of JSON takes; and back again.

Columns of Parquet hold times, bytes and decimals, and numbers may be none: Python's writer refuses the former and
writes the latter in a way of its own. This file does not know what a record means.
"""

from __future__ import annotations

import json
import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python


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
