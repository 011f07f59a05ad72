"""A process of its own for what may hang or grow without bound: it is ended at its limit, and the next is asked there.

`LimitedProcess` is the side of the caller, `serve` that of the process. The process is a file that is run, so it needs
nothing of the caller's program: scripts without a ``__main__`` guard, notebooks, standard input and threads will do.
They speak JSON, one line each. This file does not know what is asked.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).parents[1]
WALL = 6  # a request may take so many times its limit of computing, for the machine may be busy with other things
OWN_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


_ALIVE: weakref.WeakSet[LimitedProcess] = weakref.WeakSet()


class LimitReached(Exception):
    """A request without a reply; says why."""


class LimitedProcess:
    """One warm process, started when it is first asked, and again in its place when it had to be ended.

    Any thread may ask; one waits for the other. A forked child, and a copy, start processes of their own.

    Args:
        file: that is run; it calls `serve`.
    """

    def __init__(self, file: Path):
        self.file = file
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        _ALIVE.add(self)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """A copy starts a process of its own."""
        return LimitedProcess, (self.file,)

    def ask(self, request: Any, seconds: float) -> Any:
        """The reply to a request, both as JSON can hold them.

        Args:
            request: what the process is asked.
            seconds: of computing that it may take.

        Raises:
            LimitReached: if it takes longer, or the process ends over it.
            TypeError, ValueError: if the request is not plain.
        """
        line = json.dumps([seconds, request]).encode() + b"\n"
        with self._lock:
            process = self._running()
            with suppress(OSError):  # it has ended
                _write(process, line)
                if (reply := _read_line(process, WALL * seconds)) is not None:
                    return json.loads(reply)
            self._process = None
            with suppress(subprocess.TimeoutExpired):  # it is about to say how it ended
                process.wait(WALL)
            raise LimitReached(_why(_end(process), seconds))

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked child must not talk into its parent's pipes.
        if self._process is not None and self._process.poll() is None and self._owner == os.getpid():
            return self._process
        folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", str(self.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | OWN_THREADS | {"PYTHONPATH": os.pathsep.join(folders)},
        )
        self._owner = os.getpid()
        weakref.finalize(self, _end, process)
        if _read_line(process, None) is None:  # what it loads at its start is not held against a request
            raise RuntimeError(f"a process does not start: try `PYTHONPATH={ROOT} python -P {self.file}`")
        return process


def serve(answer: Callable[[Any], Any], memory: int) -> None:
    """What the process does: answers requests on standard input, until there are no more.

    It ends itself at a request's limit of time, so that nothing is left behind, even by a caller that was killed.

    Args:
        answer: gives the reply to a request.
        memory: bytes that it may take beyond what it has now; then it meets a MemoryError.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group; the caller decides when it needs no answers
        signal.signal(stop, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "w")  # whatever a library prints must not be taken for a reply
    os.dup2(2, 1)
    _limit_memory(memory)
    print("true", file=replies, flush=True)
    for line in sys.stdin:
        seconds, request = json.loads(line)
        _limit_time(seconds)
        reply = json.dumps(answer(request))
        _limit_time(0)
        print(reply, file=replies, flush=True)


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def _read_line(process: subprocess.Popen[bytes], limit: float | None) -> bytes | None:
    """The next line of a process; None if there is none, or not within so many seconds, and it is killed then."""
    assert process.stdout is not None
    stream: BinaryIO = process.stdout  # type: ignore[assignment]
    waiting, parts = select.poll(), list[bytes]()
    waiting.register(stream, select.POLLIN | select.POLLHUP)
    end = None if limit is None else time.monotonic() + limit
    while not (parts and parts[-1].endswith(b"\n")):
        left = None if end is None else max(0, 1000 * (end - time.monotonic()))
        if not waiting.poll(left):
            process.kill()
            return None
        if not (part := os.read(stream.fileno(), 1 << 20)):
            return None
        parts.append(part)
    return b"".join(parts)


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a process, if it has not ended; how it did."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was still to be written cannot be
            pipe.close()  # type: ignore[union-attr]
    return process.wait()


def _why(code: int, seconds: float) -> str:
    """How a process has ended, for a reader."""
    if code in (-signal.SIGPROF, -signal.SIGKILL):
        return f"it runs longer than {seconds:g} seconds"
    return "its process came to an end over it" + (f" ({signal.Signals(-code).name})" if code < 0 else "")


def _limit_time(seconds: float) -> None:
    """End this process after so many seconds of computing; 0 lifts the limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(more: int) -> None:
    import resource

    statm = Path("/proc/self/statm")
    held = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _renew_locks() -> None:
    """In a forked child nobody holds the locks that threads of its parent held."""
    for one in _ALIVE:
        one._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)
