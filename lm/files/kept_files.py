"""What is made once and kept in the cache: whole under its name, and read only if it is as it was written.

A kept thing is a folder: its files, and a note of the name, the length and the hash of each. Truncated, zeroed and
mixed up files read like good ones, and a model trains on them without a word; so whatever differs from its note is made
anew. A file is read through once in each process that uses it. This file does not know what is kept; what grows line by
line (lm/files/append_log.py) or vector by vector (lm/files/embedding_store.py) has checksums of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lm.files.made_by import not_taken
from lm.files.whole_folder import whole_folder
from text.whole_files import file_sha256

NOTE = "kept.json"

_VERIFIED: dict[Path, Any] = {}  # what this process has read through, and how its files looked then


def cache_folder() -> Path:
    """Where things are kept between runs: ``$SEEDLING_CACHE``, or ``~/.cache/seedling``."""
    return Path(os.environ.get("SEEDLING_CACHE") or "~/.cache/seedling").expanduser()


def kept_folder(name: str | Path, fill: Callable[[Path], Any]) -> Path:
    """A folder of the cache, filled once, and again if it is not what was written.

    Args:
        name: below the cache; changes with all that decides what is in it.
        fill: writes its files into the folder that it is given.
    """
    return find_kept(name) or keep(name, fill)


def find_kept(name: str | Path) -> Path | None:
    """A folder of the cache; None if it is not there, or not as it was written, which is told.

    Raises:
        OSError: if it cannot be read.
    """
    folder = cache_folder() / name
    if not os.path.lexists(folder):
        return None
    if (what := _damage(folder, Path(name))) is not None:
        print(f"{folder}: {what}: it is made anew", flush=True)
        return None
    return folder


def why_not_kept(name: str | Path, kind: str, made_by: Mapping[str, str], related: Collection[str]) -> str | None:
    """Why what is kept beside a name that is not there is not taken, in a line; None if there is nothing near it.

    Args:
        name: see `kept_folder`.
        kind: of the things beside it.
        made_by: on what it depends.
        related: see `lm.files.made_by.not_taken`.
    """
    place = cache_folder() / name
    notes = (_noted(other) for other in place.parent.glob("[!.]*") if other != place)
    found = [note["made_by"] for note in notes if isinstance(note.get("made_by"), dict)]
    return not_taken(kind, place.parent, made_by, found, related)


def keep(name: str | Path, fill: Callable[[Path], Any], made_by: Mapping[str, str] | None = None) -> Path:
    """Fill a folder of the cache, whatever is under its name.

    Args:
        name: see `kept_folder`.
        fill: likewise.
        made_by: on what it depends, by the name of the dependence, to tell others why it is not for them.
    """
    folder, by = cache_folder() / name, {} if made_by is None else {"made_by": dict(made_by)}
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    try:
        with whole_folder(folder, overwrite=True) as filling:
            fill(filling)
            (filling / NOTE).write_text(json.dumps(_note(filling, Path(name)) | by), encoding="utf-8")
    except OSError:
        if not folder.is_dir() or _damage(folder, Path(name)) is not None:
            raise  # else another process was faster, with the same result
    return folder


def _damage(folder: Path, name: Path) -> str | None:
    """How a folder differs from what was written under its name; None if it does not."""
    try:
        seen = [(str(path), at.st_ino, at.st_size, at.st_mtime_ns) for path in _files(folder) for at in [path.stat()]]
        if seen and _VERIFIED.get(folder) == seen:
            return None
        noted = json.loads((folder / NOTE).read_bytes())
        if isinstance(noted, dict):
            noted.pop("made_by", None)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return f"it has no {NOTE}"
    except ValueError:
        return f"{NOTE} is not as it was written"
    if (what := _difference(noted, _note(folder, name))) is None:
        _VERIFIED[folder] = seen
    return what


def _difference(noted: Any, found: dict[str, Any]) -> str | None:
    """How a note, which may be anything that JSON can say, differs from what is there."""
    if noted == found:
        return None
    if not isinstance(noted, dict) or not isinstance(noted.get("files"), dict) or noted.keys() != found.keys():
        return f"{NOTE} is not as it was written"
    if noted["name"] != found["name"]:
        return f"it was kept as {noted['name']}"
    were, are = noted["files"], found["files"]
    file = min(name for name in were.keys() | are.keys() if were.get(name) != are.get(name))
    if file not in are:
        return f"{file} is missing"
    return f"{file} " + ("is not as it was written" if file in were else "does not belong there")


def _noted(folder: Path) -> dict[str, Any]:
    """What a note says; nothing where it cannot be read, which is told when somebody wants what it is of."""
    try:
        noted = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _note(folder: Path, name: Path) -> dict[str, Any]:
    """What is noted of a folder: the name that it is kept under, and length and hash of each of its files."""
    files = {path.relative_to(folder).as_posix(): path for path in _files(folder) if path != folder / NOTE}
    described = {file: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for file, path in files.items()}
    return {"name": name.as_posix(), "files": described}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())
