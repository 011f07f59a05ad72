"""What a benchmark about videos came to: numbers by name, and a page for a reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
