"""What to tell someone whose disk refuses: one line, at every door.

Knows the errors of the operating system, and the two libraries in Rust that report them as text. Whose file it was is
not known here.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from traceback import walk_tb

from text.errors import UserError

HOUSE = Path(__file__).parents[1]
FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
ELSEWHERE = "give another place (--trainer.default_root_dir for runs, the variable SEEDLING_CACHE for caches)"
REMEDIES = {
    **dict.fromkeys(FULL, "make room, or " + ELSEWHERE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "allow it, or " + ELSEWHERE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder should be: move it, or " + ELSEWHERE),
    errno.EISDIR: "a folder stands where a file should be: move it, or give another name",
    **dict.fromkeys((errno.ENOENT, errno.ENODEV, errno.ESTALE, errno.EIO, errno.ENXIO), "is the disk there?"),
    errno.ENAMETOOLONG: "give a shorter name",
}


def reason_of(error: BaseException) -> str | None:
    """What to tell the user; None for a bug of ours, which keeps its traceback."""
    if isinstance(error, UserError):
        return str(error)
    number, name = None, None
    if isinstance(error, OSError):
        number, name = error.errno, error.filename
    elif found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors and tokenizers
        number, name = int(found[1]), "a file"
    if number in REMEDIES and (name is not None or number in FULL):
        what = "could not be written: " if number in (*FULL, errno.EROFS) else ""
        return f"{name or 'a file'}: {what}{os.strerror(number)}: {REMEDIES[number]}"
    return None if error.__cause__ is None or is_ours(error) else reason_of(error.__cause__)


def is_ours(error: BaseException) -> bool:
    """Whether a line of this repository raised it: then it is a bug, whatever error it was raised from."""
    file = raised_in(error)
    return file is not None and file.is_relative_to(HOUSE) and "site-packages" not in file.parts


def raised_in(error: BaseException) -> Path | None:
    """The file with the line that raised an error; None for one that was not raised."""
    files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
    return Path(files[-1]) if files else None


def disk_is_full(error: BaseException) -> bool:
    """Whether there was no room."""
    return isinstance(error, OSError) and error.errno in FULL
