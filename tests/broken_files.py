"""Eight ways in which a file on a disk may not be what was written to it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

PAGE = 4096
NOBODY = 65534
WAYS = (
    "truncated",
    "emptied",
    "zeroed page",
    "bit flipped",
    "garbage",
    "another cache's file",
    "a folder in its place",
    "unreadable",
)


def broken(path: Path, way: str, other: bytes, rng: random.Random) -> AbstractContextManager[None]:
    """Breaks a file; within the context, where the way needs one.

    Args:
        path: the file.
        way: one of `WAYS`.
        other: what stands in the file of the same kind that something else is kept in.
        rng: chooses places.
    """
    if way == "unreadable":
        return unreadable(path)
    content = bytearray(path.read_bytes())
    if way == "a folder in its place":
        path.unlink()
        path.mkdir()
        return nullcontext()
    if way == "zeroed page":
        begin = rng.randrange(len(content)) // PAGE * PAGE if content else 0
        content[begin : begin + PAGE] = bytes(len(content[begin : begin + PAGE]))
    elif way == "bit flipped" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    made = {"truncated": content[: len(content) // 2], "emptied": b"", "another cache's file": other}
    path.write_bytes(made.get(way, rng.randbytes(max(len(content), 1)) if way == "garbage" else content))
    return nullcontext()


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """A file or folder that this process may not read; root, who may read everything, is somebody else meanwhile."""
    mode, root = path.stat().st_mode, os.geteuid() == 0
    path.chmod(0)
    try:
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


@contextmanager
def readable_folder() -> Iterator[Path]:
    """A folder that somebody else can look into: those of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        shutil.rmtree(folder)
        Path(folder).mkdir()
