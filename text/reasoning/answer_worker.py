"""A process of its own in which math-verify compares answers, so that one that hangs or grows can be killed.

`AnswerWorker` is the side of the caller; ``python -m text.reasoning.answer_worker`` is the process. Being a module that
is run, it needs nothing of the caller's program: scripts without a ``__main__`` guard, notebooks, standard input and
threads will do. They speak JSON, one line each.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WALL = 6  # a comparison may take so many times its limit of computing, for the machine may be busy with other things
MEMORY = 4 << 30  # bytes of address space; a tower of powers asks for more


class AnswerWorker:
    """One warm process, started when it is first asked, and again in its place when it had to be killed.

    Args:
        timeout: seconds of computing that a comparison may take.

    Attributes:
        timeouts: comparisons that were given up: too slow, or too large.
    """

    def __init__(self, timeout: float):
        self.timeout = timeout
        self.timeouts = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def __reduce__(self) -> tuple[type, tuple[float]]:
        """A copy starts a process of its own."""
        return AnswerWorker, (self.timeout,)

    def equal(self, gold: Sequence[str], answer: Sequence[str]) -> bool:
        """Whether math-verify finds an answer right; False if that cannot be found out in time.

        Args:
            gold: how the right answer may be read; the first reading that can be parsed counts.
            answer: likewise.
        """
        with self._lock:
            process = self._running()
            reply = _exchange(process, {"gold": [*gold], "answer": [*answer]}, WALL * self.timeout)
            if reply is None:
                self.timeouts += 1
                _end(process)
                self._process = None
                return False
            return bool(reply)

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked child must not talk into its parent's pipes.
        if self._process is not None and self._process.poll() is None and self._owner == os.getpid():
            return self._process
        folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "text.reasoning.answer_worker", str(self.timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        )
        self._owner = os.getpid()
        weakref.finalize(self, _end, process)
        # The first answer is on the grammars, which take a second to load: it is not held against the question.
        if _exchange(process, {"gold": ["$1$"], "answer": ["1"]}, None) is not True:
            raise RuntimeError(
                "the process that compares answers does not start: try `python -m text.reasoning.answer_worker 5`"
            )
        return process


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any], limit: float | None) -> bool | None:
    """The reply to a request; None if there is none, because the process ended or was killed at the limit."""
    assert process.stdin is not None
    assert process.stdout is not None
    killer = threading.Timer(limit, process.kill) if limit is not None else None
    if killer:
        killer.start()
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline() or b"null")
    except OSError:
        return None
    finally:
        if killer:
            killer.cancel()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was still to be written cannot be
            pipe.close()  # type: ignore[union-attr]
    process.wait()


def verify(gold: Sequence[str], answer: Sequence[str]) -> bool:
    """What the process does: parse both, and compare.

    Args:
        gold: readings of the right answer; the first that math-verify can parse counts.
        answer: likewise.
    """
    import math_verify

    def parsed(readings: Sequence[str]) -> list[Any]:
        found = (math_verify.parse(reading, parsing_timeout=None) for reading in readings)
        return next(filter(None, found), [])

    return math_verify.verify(parsed(gold), parsed(answer), timeout_seconds=None)


def main(timeout: float) -> None:
    """Answer requests on standard input, until there are no more.

    Args:
        timeout: seconds of computing per request, after which the process ends itself: then nothing is left behind,
            even by a caller that was killed.
    """
    _limit_memory()
    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "w")  # whatever a library prints must not be taken for a reply
    os.dup2(2, 1)
    verify(["$1$"], ["1"])
    for line in sys.stdin:
        _limit(timeout)
        print(json.dumps(verify(**json.loads(line))), file=replies, flush=True)
        _limit(0)


def _limit(seconds: float) -> None:
    """End this process after so many seconds of computing; 0 lifts the limit."""
    if hasattr(signal, "setitimer"):  # elsewhere the caller's own clock has to do
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not POSIX
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))


if __name__ == "__main__":
    main(float(sys.argv[1]))
