"""Verdicts that could not be read: what share, for which reasons, and what was said instead.

Whoever reads a report reads this first: numbers about the few verdicts that could be read may mean little. This file
knows names, reasons and words. It does not know how verdicts are read (text/judging/verdicts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from text.excerpts import PLAIN, printable

MOST_UNREAD = 0.02  # of the verdicts, before a report warns
EXAMPLES = 3  # of each reason
CHARACTERS = 200  # from the end of an example, where a verdict should stand


class Unread(NamedTuple):
    """A verdict that could not be read.

    Args:
        name: of what was judged.
        reason: see `text.judging.verdicts.Reason`.
        said: the judge's words.
    """

    name: str
    reason: str
    said: str


def share_read(verdicts: int, unread: int) -> str:
    """How many verdicts could be read, in a sentence, with a warning where they are few."""
    if not verdicts:
        return "Nothing was judged."
    told = f"{verdicts - unread:,} of {verdicts:,} verdicts ({100 * (1 - unread / verdicts):.1f} %) could be read."
    if unread > MOST_UNREAD * verdicts:
        return f"**Caution**: {told} The others are in no mean and no correlation: what follows is about a part."
    return told


def examples(unread: Sequence[Unread]) -> str:
    """How often each reason occurred, with the last words of the first few; nothing without any."""
    if not unread:
        return ""
    by_reason: dict[str, list[Unread]] = {}
    for one in unread:
        by_reason.setdefault(one.reason, []).append(one)
    lines = ["## Verdicts that could not be read", ""]
    for reason, found in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        lines.append(f"- `{reason}`: {len(found):,}")
        lines += [f"  - {one.name.translate(PLAIN)}: {_end(one.said)}" for one in found[:EXAMPLES]]
    return "\n".join(lines)


def _end(said: str) -> str:
    """The last words, on one line."""
    words = " ".join(printable(said).split())
    if not words:
        return "(nothing was said)"
    cut = "... " if len(words) > CHARACTERS else ""
    return cut + words[-CHARACTERS:].translate(PLAIN)
