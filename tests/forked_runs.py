"""The main job in a process that begins with everything imported, and is killed outright at a chosen call.

A fork of the test costs a tenth of a second where a new Python costs ten.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.trainer_cli import main


@dataclass(frozen=True)
class Kill:
    """SIGKILL at a call of some function.

    Args:
        of: module and function, ``torch:save``.
        call: which call, counted from 1.
        when: before it, after it, or once half of what it has written is on the disk: to the file that is its last
            argument, or to the ``path`` of the object whose method it is.
        file: count only calls whose last argument is a file of such a name.
    """

    of: str
    call: int = 1
    when: str = "before"
    file: str = ""

    def arm(self) -> None:
        """Puts a counter around the function."""
        module, _, path = self.of.partition(":")
        *owners, name = path.split(".")
        owner = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        inner, left = getattr(owner, name), self.call

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= bool(re.search(self.file, Path(str(args[-1])).name))
            if left == 0 and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if left == 0 and self.when == "half":
                self._halve(inner, *args)
            result = inner(*args, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)

    @staticmethod
    def _halve(inner: Any, *args: Any) -> None:
        file = args[-1] if hasattr(args[-1], "flush") else None
        path = Path(file.name if file else args[0].path)
        before = path.stat().st_size if path.exists() else 0
        inner(*args)
        if file:
            file.flush()
        os.truncate(path, before + (path.stat().st_size - before) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def run(arguments: Sequence[str], folder: Path, kill: Kill | None = None) -> int:
    """Runs ``main.py`` in a folder, with a cache there; what it says is added to ``said.txt``.

    Returns: its exit status, or minus the number of the signal that ended it.
    """
    _, status = os.waitpid(start(arguments, folder, kill), 0)
    return os.waitstatus_to_exitcode(status)


def start(arguments: Sequence[str], folder: Path, kill: Kill | None = None) -> int:
    """The same without waiting for its end; returns the number of the process."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    status = 70
    try:
        said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115  pytest has its own
        os.chdir(folder)
        os.environ["SEEDLING_CACHE"] = str(folder / "cache")
        sys.argv = ["main.py", *arguments]
        if kill is not None:
            kill.arm()
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
