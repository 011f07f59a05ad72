"""Files of a report: each appears when it is whole.

This file knows text, lines and figures. It does not know what they tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text.json_lines import json_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """A text file."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of JSON lines."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json_line(row) for row in rows)
    os.replace(partial, path)


def write_figure(path: Path, figure: Figure) -> None:
    """A PNG picture."""
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=160)
    os.replace(partial, path)
