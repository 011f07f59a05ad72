"""What was probably meant: near names for a misspelt word, near files for a missing one.

It knows strings and folders. It does not know what the names are names of.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

LONGEST = 100  # characters of a word that can be misspelt; comparing takes their square


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """``" Did you mean: a, b?"`` for up to three near candidates, an empty string when none is near."""
    if len(word) > LONGEST:
        return ""
    folded: dict[str, str] = {}
    for candidate in sorted(candidates):
        folded.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(word.lower(), list(folded), n=3, cutoff=0.6)
    return f" Did you mean: {', '.join(folded[name] for name in near)}?" if near else ""


def missing_file(path: str | Path) -> str:
    """Says that ``path`` does not exist, how far it does exist, and which names there are near."""
    path = Path(os.path.relpath(path)) if Path(path).is_relative_to(Path.cwd()) else Path(path)
    folder = path.parent
    if not folder.is_dir():
        known = next((parent for parent in folder.parents if parent.is_dir()), Path("."))
        missing = folder.relative_to(known).parts[0]
        names = [entry.name for entry in known.iterdir() if entry.is_dir()]
        place = "here" if known == Path() else f"in {known}"
        return f"{path}: no such file. There is no folder '{missing}' {place}." + did_you_mean(missing, names)
    names = [entry.name for entry in folder.iterdir()]
    stems = {name.split(".")[0]: name for name in names}
    hint = did_you_mean(path.name, names) or did_you_mean(path.stem, stems)
    return f"{path}: no such file." + hint
