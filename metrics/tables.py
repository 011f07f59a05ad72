"""Numbers and rows of markdown tables, as a report writes them.

This file knows numbers with their intervals. It does not know what they measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

UNREACHED = "n/a"


def number(value: float, digits: int = 2) -> str:
    """A value; n/a for NaN, never for infinity (the time of something that does not happen)."""
    if math.isnan(value):
        return UNREACHED
    return "never" if math.isinf(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"


def magnitude(value: float) -> str:
    """A positive value that may be of any size."""
    if not math.isfinite(value):
        return number(value)
    return f"{value:.0f}" if value < 1e5 else f"{value:.1e}" if value < 1e12 else "> 1e12"


def interval(estimate: dict, digits: int | None = 2) -> str:
    """`value [low, high]` of a dictionary with these keys; the value alone where there is no interval.

    Args:
        estimate: value, low, high; the bounds may be left out.
        digits: after the point, or None for `magnitude`.
    """
    write = magnitude if digits is None else lambda value: number(value, digits)
    text = write(estimate["value"])
    if math.isnan(estimate.get("low", math.nan)):
        return text
    return f"{text} [{write(estimate['low'])}, {write(estimate['high'])}]"


def section(title: str, text: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A headed table with a paragraph above it; nothing at all without rows."""
    if not rows:
        return ""
    table = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {title}", "", *([text, ""] if text else []), *(f"| {' | '.join(row)} |" for row in table)])
