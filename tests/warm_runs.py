"""The project's commands in processes of their own that begin with everything imported: one process, or one a rank.

A new Python takes ten seconds to import what a run of one second needs. A fork server (multiprocessing's) imports it
once; what is started here is forked from it. A test of how processes begin starts a new Python all the same.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.connection
import os
import runpy
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

ROOT = Path(__file__).parents[1]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["cli.trainer_cli", "torch.utils.tensorboard", "transformers.models.llama", "tests.stand_ins"]
)
TIMEOUT = 400  # seconds


@dataclass(frozen=True)
class Run:
    """The processes of one command, all of which write to one file."""

    processes: Sequence[Any]
    told: Path

    @property
    def said(self) -> str:
        return self.told.read_text(encoding="utf-8", errors="replace")

    def ended(self) -> bool:
        return not any(process.is_alive() for process in self.processes)

    def send(self, signal: int) -> None:
        for process in self.processes:
            os.kill(process.pid, signal)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Returns: 0, or the status of the first process that failed; the others are killed then, as torchrun does."""
        end = time.monotonic() + timeout
        while not self.ended():
            if time.monotonic() > end or any(process.exitcode for process in self.processes):
                break
            multiprocessing.connection.wait([process.sentinel for process in self.processes], timeout=0.2)
        failed = next((process.exitcode for process in self.processes if process.exitcode), None)
        late = not self.ended() and failed is None
        self.kill()
        assert not late, f"not done after {timeout} s:\n{self.said[-8000:]}"
        return failed or 0


def run(command: Sequence[str], folder: Path, ranks: int = 1, timeout: float = TIMEOUT, **environment: str) -> str:
    """Runs ``main.py fit ...`` (or another command of the project) in a folder; returns what it said.

    Args:
        command: the script and its arguments.
        ranks: processes; what torchrun tells its own is in their environment.
        environment: further variables.
    """
    started = start(command, folder, ranks, **environment)
    status = started.wait(timeout)
    assert status == 0, f"{' '.join(command)}: {status}\n{started.said[-10000:]}"
    return started.said


def start(command: Sequence[str], folder: Path, ranks: int = 1, **environment: str) -> Run:
    """The same, without waiting for its end."""
    return call("tests.warm_runs:script", (tuple(command),), folder, ranks, **environment)


def ranks(options: Sequence[str]) -> int:
    """How many processes a command asks for: by ``--trainer.devices=N``, or by an ``fsdp.yaml``, which is of two."""
    told = [int(option.partition("=")[2]) for option in options if option.startswith("--trainer.devices=")]
    return told[-1] if told else 1 + any(option.endswith("fsdp.yaml") for option in options)


def call(function: str, arguments: tuple[Any, ...], folder: Path, ranks: int = 1, **environment: str) -> Run:
    """Starts a function of a module (``module:name``) in each process."""
    told = Path(folder, f"said-{time.monotonic_ns()}.txt")
    told.touch()
    shared = {"SEEDLING_CACHE": str(Path(folder, "cache"))} | environment
    processes = []
    for rank, of_rank in enumerate(_environments(ranks)):
        given = (function, arguments, str(folder), str(told), shared | of_rank)
        processes.append(FORKS.Process(target=_begin, args=given, name=f"rank {rank}"))
        processes[-1].start()
    return Run(processes, told)


def script(command: Sequence[str]) -> None:
    """A script of the project's root, as ``python main.py ...`` begins it."""
    sys.argv = list(command)
    runpy.run_path(str(ROOT / command[0]), run_name="__main__")


def _environments(count: int) -> list[dict[str, str]]:
    """The environment of each rank; one process alone is told nothing."""
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": port, "TORCHELASTIC_RESTART_COUNT": "0"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _begin(function: str, arguments: tuple[Any, ...], folder: str, told: str, environment: Mapping[str, str]) -> None:
    """What a forked process does first; it ends without Python's own clean-up, which may wait for another rank."""
    said = os.open(told, os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115  they stay open
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("RANK", 0))  # Lightning reads it where it is imported
    os.chdir(folder)
    status = 1
    try:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
