"""What kept things depend on beside what was asked, by the name of each dependence; and why those of others are left.

Knows names and hashes. It does not know what is kept, nor where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path


def other_parts(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """The names of the parts in which something is not as it is wanted; '' for none."""
    return " and ".join(name for name in {**wanted, **found} if found.get(name) != wanted.get(name))


def not_taken(
    kind: str,
    folder: Path,
    wanted: Mapping[str, str],
    found: Iterable[Mapping[str, str]],
    related: Collection[str] | None = None,
) -> str | None:
    """Why nothing of a kind is taken, in a line; None if there is nothing of the kind.

    Args:
        kind: of the things.
        folder: where they are.
        wanted: on what they would have to depend.
        found: on what those that are there depend.
        related: where things of all kinds of runs lie together: those that agree in none of these parts are not told.
    """
    near = (by for by in found if related is None or any(by.get(part) == wanted[part] for part in related))
    parts = Counter(other for by in near if (other := other_parts(wanted, by)))
    if not parts:
        return None
    told = ", ".join(f"{count:,} of other {others}" for others, count in parts.most_common())
    return f"{folder}: no {kind} of before are taken: {told}"
