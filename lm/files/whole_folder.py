"""A folder that is under its name when all of it is written, and never half of it, nor for a moment nothing.

Knows files, and nothing of what is in them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from text.errors import UserError
from text.whole_files import left_behind, private_prefix

OLD = ".old"  # the end of a name under which something stands aside
PRIVATE = 0o600  # how `tempfile` makes files, and with it safetensors
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


@contextmanager
def whole_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill that appears under its name only when it is complete.

    Args:
        folder: the final name.
        overwrite: whether a folder with files in it may be replaced; until then the old one stands.

    Raises:
        UserError: before anything is written, if it may not.
    """
    if folder.is_file():  # --overwrite is said of folders that this command has made
        raise UserError(f"'{folder}' is a file; give another name")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"'{folder}' exists and is not empty; give another name, or --overwrite")
    folder.parent.mkdir(parents=True, exist_ok=True)
    take_up(folder)
    for left in left_behind(folder):
        shutil.rmtree(left, ignore_errors=True)
    try:
        filling = Path(tempfile.mkdtemp(prefix=f"{private_prefix(folder)}{os.getpid()}.", dir=folder.parent))
    except OSError as error:  # it names the temporary folder, which nobody asked for
        raise OSError(error.errno, error.strerror, str(folder)) from None
    try:
        yield filling
        _open_up(filling)
        _sync(filling)
        put_in_place(filling, folder)
    finally:
        shutil.rmtree(filling, ignore_errors=True)  # what came of it is under its name, or the old folder is here


def _open_up(folder: Path) -> None:
    """Give the folder, and what libraries wrote as their private temporary files, the mode of any other file."""
    mask = _umask()
    folder.chmod(0o777 & ~mask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == PRIVATE:
            path.chmod(0o666 & ~mask)


def _sync(folder: Path) -> None:
    """Have all of it on the disk: a name that outlives a loss of power must not stand for empty files."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def put_in_place(new: Path, path: Path) -> None:
    """Have a complete file or folder under its name, in one step where the system can; what was there is deleted last.

    Args:
        new: beside ``path``, on the same disk.
        path: the name; killed between two steps, `take_up` finds what was under it.
    """
    if not path.is_dir() and not (new.is_dir() and path.exists()):
        os.replace(new, path)
        return
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    flags = (AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE)
    if rename is not None and rename(*flags) == 0:
        remove(new)  # which has the old one's content now
        return
    old = path.with_name(f".{path.name}{OLD}")
    remove(old)
    os.replace(path, old)
    os.replace(new, path)
    remove(old)


def take_up(path: Path) -> None:
    """Bring back what a process that was killed within `put_in_place` had taken from a name, or delete it."""
    if (old := path.with_name(f".{path.name}{OLD}")).exists():
        if path.exists():
            remove(old)
        else:
            os.replace(old, path)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask
