"""Files of a report: lines and figures; each appears when it is whole (text/whole_files.py has plain text).

This file does not know what they tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text.json_lines import json_line
from text.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of JSON lines."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json_line(row) for row in rows)


def write_figure(path: Path, figure: Figure) -> None:
    """A PNG picture."""
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=160)
