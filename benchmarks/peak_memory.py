"""The largest amount of memory that a process has ever held; each way of a benchmark has a process of its own."""

from __future__ import annotations

from pathlib import Path


def peak_kibibytes() -> int:
    """Of this process, resident, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1])
