"""One process writes into a run folder: a lock that says whose it is, and is recognised when its owner is gone.

It knows processes and files. It does not know what a run is.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from text.errors import UserError

LOCK = ".lock"


def lock(folder: Path) -> None:
    """Makes this process the only one that writes into a folder.

    Raises:
        UserError: another process does, or may: it is on a machine that cannot be asked.
    """
    path = folder / LOCK
    while True:
        try:
            _appear(path)
            return
        except FileExistsError:
            owner = _owner(path)
            if owner is not None and not _is_gone(owner):
                raise UserError(
                    f"{folder} is being written by process {owner.get('pid')} on {owner.get('host')}: two runs in one "
                    f"folder would spoil both. If that process is gone, delete {path}"
                ) from None
            _take_away(path, owner)


def _appear(path: Path) -> None:
    """Makes the lock, which says whose it is from its first moment on."""
    mine = path.with_name(f"{LOCK}.{os.getpid()}.new")
    try:
        mine.write_text(json.dumps(_myself()), encoding="utf-8")
        os.link(mine, path)
    finally:
        mine.unlink(missing_ok=True)


def unlock(folder: Path) -> None:
    """Gives a folder back, if it is this process's."""
    if _owner(folder / LOCK) == _myself():
        (folder / LOCK).unlink(missing_ok=True)


def _take_away(path: Path, owner: dict[str, Any] | None) -> None:
    """Removes a lock whose owner is gone; of two processes that see it one does, and both ask again.

    The other may have made its own in the meantime, which then goes back to where it was.
    """
    taken = path.with_name(f"{LOCK}.{os.getpid()}")
    try:
        os.replace(path, taken)
    except FileNotFoundError:
        return
    if _owner(taken) == owner:
        taken.unlink()
    else:
        os.replace(taken, path)


def _myself() -> dict[str, Any]:
    me: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    return me | {"job": job} if (job := os.environ.get("SLURM_JOB_ID")) else me


def _owner(path: Path) -> dict[str, Any] | None:
    """Who wrote a lock; None if it was cut off while it was written, which takes no time."""
    try:
        owner = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _is_gone(owner: dict[str, Any]) -> bool:
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None and owner.get("job") == job and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0:
        return owner != _myself()  # a job that was put back into the queue has lost its processes
    if owner.get("host") != socket.gethostname():
        return False
    return not isinstance(pid := owner.get("pid"), int) or _started(pid) != owner.get("started")


def _started(pid: int) -> str | None:
    """When a process began, as its system counts; None if there is none. Numbers of processes are used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)  # a system that has no /proc
    except OSError:
        return None
    return "running"
