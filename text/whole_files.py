"""Files that are under their name when all of them is written, and never half of it; and their hashes.

Knows files, and nothing of what is in them. Folders are in lm/files/whole_folder.py.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another name, to write under: what is there in the end becomes the file, in one step.

    Of several processes that write the same file each has a name of its own, and the last one's file stays.

    Args:
        path: the final name; until then what is there stays.
    """
    for left in left_behind(path):
        left.unlink(missing_ok=True)
    partial = path.with_name(f"{private_prefix(path)}{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def private_prefix(path: Path) -> str:
    """How the names begin under which processes of this machine fill a file or folder, beside it."""
    return f".{path.name}.{platform.node()}."


def left_behind(path: Path) -> Iterator[Path]:
    """What processes of this machine left that were killed while they filled a file or folder."""
    filled = re.compile(re.escape(private_prefix(path)) + r"(\d+)\.\w+")
    for left in path.parent.iterdir() if path.parent.is_dir() else ():
        if found := filled.fullmatch(left.name):
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                yield left
            except OSError:
                pass  # it lives, under another user


def write_text(path: Path, text: str) -> None:
    """A text file."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Hash of the bytes of a file, which are read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
