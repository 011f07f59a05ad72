"""Files that are under their name when all of them is written, and never half of it; and their hashes.

Knows files, and nothing of what is in them. Folders are in lm/files/whole_folder.py.
"""

from __future__ import annotations

import hashlib
import os
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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Hash of the bytes of a file, which are read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
