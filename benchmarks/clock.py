"""The clock of the benchmarks, and the option ``--threads`` that sets it.

With one thread it counts CPU seconds of the process, which a busy machine hardly changes. With more, or beside a GPU,
it is the clock on the wall: threads that wait for each other count as busy, and a user waits for the wall. Those runs
want a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option ``--threads``."""
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of torch (default: 1, times in CPU seconds); with more, times are of the clock on the wall",
    )


def use_threads(options: argparse.Namespace) -> None:
    """Set what ``--threads`` says for all that follows, before anything is computed."""
    torch.set_num_threads(options.threads)


def now() -> float:
    """Seconds from an unknown beginning: CPU time of the process with one thread, else the clock on the wall."""
    return time.process_time() if _counts_cpu() else time.perf_counter()


def unit() -> str:
    """What `now` counts, in words for a table."""
    return "CPU seconds, one thread" if _counts_cpu() else f"seconds on the wall, {torch.get_num_threads()} threads"


def timed(way: Callable[[], T]) -> tuple[float, T]:
    """Seconds that it took, and what came of it."""
    began = now()
    result = way()
    return now() - began, result


def interleaved(ways: Mapping[str, Callable[[], T]], rounds: int) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of each round, and what came out of the last one, by way.

    Args:
        ways: by name; all in each round, so that a busy moment hits all alike.
        rounds: how often.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = dict[str, T]()
    for _ in range(rounds):
        for name, way in ways.items():
            spent, found[name] = timed(way)
            seconds[name].append(spent)
    return seconds, found


def fastest(ways: Mapping[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of the fastest repeat of each way, in turn, and what each gave last."""
    seconds, found = interleaved(ways, repeats)
    return {name: min(of_way) for name, of_way in seconds.items()}, found


def _counts_cpu() -> bool:
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()
