"""The largest amount of memory that a process, or its tensors, have ever held; each way has a process of its own.

A process keeps what its allocator could not hand back, so that many short-lived tensors cost it more than they ever are
at once. Which of the two counts depends on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_kibibytes() -> int:
    """Of this process, resident, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1])


def peak_of_tensors(work: Callable[[], Any]) -> int:
    """Bytes of tensors on the CPU that are alive at once, at most, of those that some work makes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    changes: Any = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = most = 0
    for change in sorted((one for one in changes if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        held += change.nbytes()
        most = max(most, held)
    return most
