"""Numbers and rows of markdown tables, as a report writes them.

This file knows numbers with their intervals. It does not know what they measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

UNREACHED = "n/a"
MORE_DIGITS = 12


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


def on_its_side(write: Callable[[float, int], str], value: float, digits: int, marks: Sequence[float]) -> str:
    """A rounded number that is on the side of the marks where the value is: no 0.0004 becomes a 0.00.

    Args:
        write: the number with so many digits.
        value: what is written.
        digits: as many, and more where rounding would cross a mark.
        marks: numbers that it may be above, at or below.
    """
    for more in range(digits, digits + MORE_DIGITS):
        text = write(value, more)
        if all((float(text) > mark, float(text) < mark) == (value > mark, value < mark) for mark in marks):
            break
    return text


def interval(estimate: dict, digits: int | None = 2) -> str:
    """`value [low, high]` of a dictionary with these keys; the value alone where there is no interval.

    Args:
        estimate: value, low, high; the bounds may be left out.
        digits: after the point, more for a bound that would be rounded to zero; or None for `magnitude`.
    """
    write = magnitude if digits is None else lambda value: number(value, digits)
    text = write(estimate["value"])
    low, high = (estimate.get(side, math.nan) for side in ("low", "high"))
    if math.isnan(low):
        return text
    low, high = (write(bound) if digits is None else _bound(bound, digits) for bound in (low, high))
    return f"{text} [{low}, {high}]"


def bounds(low: float, high: float, digits: int = 2) -> str:
    """`[low, high]`, with more digits for a bound that would be rounded to zero; nothing where they tell no spread."""
    return f"[{_bound(low, digits)}, {_bound(high, digits)}]" if low < high else ""


def _bound(value: float, digits: int) -> str:
    return on_its_side(number, value, digits, [0.0]) if math.isfinite(value) else number(value)


def section(title: str, text: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A headed table with a paragraph above it; nothing at all without rows."""
    if not rows:
        return ""
    table = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {title}", "", *([text, ""] if text else []), *(f"| {' | '.join(row)} |" for row in table)])
