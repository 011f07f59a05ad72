"""A worker: a process with one thread that runs stages, one after another, and never outlives its parent.

It knows folders, locks, logs and records. It does not know studies or the order of stages (run.py).
"""

from __future__ import annotations

import fcntl
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from studies.provenance import Stamp, add_seconds, open_record
from studies.stages import Stage

Launch = Callable[[list[str]], object]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
GRACE = 30.0  # seconds that a stopped stage has to save its state

_subprocesses: list[subprocess.Popen] = []


class Result(NamedTuple):
    """How a stage ended: seconds of this attempt, and what was wrong, if anything."""

    seconds: float
    problem: str | None


class Worker:
    """The parent's end of a worker process.

    Args:
        launch: runs main.py in-process, given its arguments.
        root: the project root, in which stages run.
        criterion: what its stages are stamped with when they begin.
    """

    def __init__(self, launch: Launch, root: Path, criterion: Stamp):
        self.stage: Stage | None = None
        self.connection, theirs = multiprocessing.Pipe()
        arguments = (theirs, launch, root, criterion)
        self.process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments)
        os.environ.update(ONE_THREAD)  # must stand before the child imports torch
        # Ctrl-C reaches every process of the terminal, but only the parent decides: children inherit the deaf ear.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def start(self, stage: Stage) -> None:
        """Hand over a stage; the connection becomes readable when it has ended."""
        self.stage = stage
        with suppress(BrokenPipeError):  # it died; result() tells how
            self.connection.send(stage)

    def result(self) -> Result:
        """How the stage ended. Blocks until it has."""
        self.stage = None
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            return Result(0.0, f"its process was ended {how}" + (" (out of memory?)" if code == -9 else ""))

    def stop(self) -> None:
        """Ask the process to end: an idle one ends at once, a busy one saves its state first (see ``GRACE``)."""
        self.connection.close()
        if self.stage is not None:
            self.process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until the process has ended; at ``deadline`` (time.monotonic) it is killed."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def serve(connection: Connection, launch: Launch, root: Path, criterion: Stamp) -> None:
    """The worker's life: run what comes in until the connection closes."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.chdir(root)
    with suppress(EOFError, BrokenPipeError):
        while True:
            stage = connection.recv()
            try:
                result = run_stage(stage, launch, criterion)
            except OSError as error:  # of its folder, lock, log or record: no room, say
                result = Result(0.0, f"{type(error).__name__}: {error}")
            connection.send(result)


def run_stage(stage: Stage, launch: Launch, criterion: Stamp) -> Result:
    """Run a stage in the current directory, resuming a half-done fit; everything it prints goes to its log.

    A fit that goes on keeps the record of when it began: a criterion that came later did not stand before all of it.
    """
    stage.home.mkdir(parents=True, exist_ok=True)
    with _only_one(stage):
        start = time.monotonic()
        if stage.marker.is_file():  # another process ran it meanwhile
            return Result(0.0, None)
        if others := sorted(stage.home.glob("version_*/metrics.json")):  # a command that was cut off and given again
            return Result(0.0, f"{others[-1].parent} has finished, but is not {stage.run}: move it there")
        resume = stage.verb == "fit" and any(stage.run.glob("checkpoints/[!.]*.ckpt"))
        if not resume:
            for half_done in stage.home.glob("version_*"):
                shutil.rmtree(half_done)
            open_record(stage, criterion)
        _print_to(stage.log, append=resume)
        arguments = stage.arguments(resume)
        problem = _in_subprocess(arguments) if stage.several_devices else _in_process(arguments, launch)
        if problem is None and not stage.marker.is_file():
            problem = f"it ended without {stage.marker}"
        seconds = time.monotonic() - start
        add_seconds(stage, seconds)
        return Result(seconds, problem)


def _in_process(arguments: list[str], launch: Launch) -> str | None:
    sys.argv = ["main.py", *arguments]  # what Lightning and its loggers believe to have been started with
    try:
        launch(arguments)
    except SystemExit as stop:
        if stop.code not in (None, 0):
            return f"it ended with exit code {stop.code}"
    except BaseException as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return None


def _in_subprocess(arguments: list[str]) -> str | None:
    """Several devices: main.py starts one process per rank, which it cannot do from within a worker."""
    process = subprocess.Popen([sys.executable, "main.py", *arguments], start_new_session=True)
    _subprocesses.append(process)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        _subprocesses.remove(process)
    return f"it ended with exit code {code}" if code else None


@contextmanager
def _only_one(stage: Stage) -> Iterator[None]:
    """Hold the stage's lock: a second reproduce.py, or one that came right after a kill, waits here."""
    with (stage.home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _print_to(log: Path, append: bool) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab" if append else "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _follow_parent() -> None:
    """End with the parent, even if it was killed: nobody may go on writing into a stage that will be started again."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    for process in _subprocesses:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    os._exit(1)
