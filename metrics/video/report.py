"""What a benchmark about videos came to: numbers by name, and a page for a reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics.report_files import write_lines
from text.whole_files import write_text


@dataclass(frozen=True)
class VideoReport:
    """The outcome of a benchmark.

    Args:
        scalars: by name.
        text: markdown.
        rows: one plain record for each question or video.
    """

    scalars: dict[str, float]
    text: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """``answers.jsonl`` and ``report.md``; tells where the latter is."""
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(folder / "answers.jsonl", self.rows)
        write_text(folder / "report.md", self.text + "\n")
        return folder / "report.md"
