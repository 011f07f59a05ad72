"""Where a run lives: ``<root>/version_N``, claimed once, found again, rewound to a checkpoint.

It knows folders, checkpoint headers and log files. It does not know trainers, parsers or methods.
"""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from text.errors import UserError
from text.suggestions import missing_file

LOGS = "run_logs"  # checkpoint key under which callbacks/run_files.py notes how far the logs went
METRICS = "metrics.json"  # there when, and only when, a verb has completed


def claim_version(root: Path) -> Path:
    """Creates and returns the next free ``<root>/version_N``; two runs that start together never share one."""
    root.mkdir(parents=True, exist_ok=True)
    number = max((version_number(run) for run in versions(root)), default=-1) + 1
    while True:
        run = root / f"version_{number}"
        try:
            run.mkdir()
            return run
        except FileExistsError:
            number += 1


def versions(root: Path) -> list[Path]:
    """The run folders under ``root``, newest first."""
    runs = [run for run in root.glob("version_*") if run.is_dir() and run.name.removeprefix("version_").isdecimal()]
    return sorted(runs, key=version_number, reverse=True)


def version_number(run: Path) -> int:
    """N of ``version_N``."""
    return int(run.name.removeprefix("version_"))


def resumable_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of ``run`` that can be read and holds optimizer state; None when there is none."""
    found = [*run.glob("checkpoints/*.ckpt"), *run.glob("hpc_ckpt_*.ckpt")]
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if path.is_dir() or "lr_schedulers" in (read_header(path) or {}):  # weights alone come without schedulers
            return path
    return None


def newest_resumable(root: Path) -> tuple[Path, Path] | None:
    """The newest ``(run, checkpoint)`` under ``root`` that a run can go on from."""
    for run in versions(root):
        if checkpoint := resumable_checkpoint(run):
            return run, checkpoint
    return None


def read_header(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint (file, or directory of shards) holds; tensors stay on disk. None when it cannot be read."""
    file = checkpoint / "meta.pt" if checkpoint.is_dir() else checkpoint
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError):
        return None


def check_checkpoint(path: Path) -> None:
    """Refuses a checkpoint that is not there or cannot be read."""
    if not path.exists():
        raise UserError(missing_file(path))
    if path.is_file() and read_header(path) is None:
        raise UserError(
            f"{path}: not a readable checkpoint (cut off, or holding objects that safe loading refuses). "
            "Give another file of that folder, or --ckpt_path last for the newest good one."
        )


def rewind_logs(run: Path, checkpoint: Path) -> None:
    """Cuts the logs of ``run`` back to where they were when ``checkpoint`` was written.

    What a killed run logged after its last checkpoint is logged again by the run that goes on: without the cut, every
    reader of the logs would see those steps twice.
    """
    header = read_header(checkpoint)
    if header is None or LOGS not in header:
        return
    lengths: dict[str, int] = header[LOGS]["lengths"]
    for file in run.glob("events.out.tfevents.*"):
        if file.name in lengths:
            os.truncate(file, min(file.stat().st_size, lengths[file.name]))
        else:
            file.unlink()
    table = run / "metrics.csv"
    if table.exists():
        with table.open(newline="") as before:
            rows = list(csv.reader(before))[: 1 + lengths.get(table.name, 0)]
        with atomic_write(table) as after:
            csv.writer(after).writerows(rows)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """Opens a text file that appears under its name only when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_if_empty(run: Path) -> None:
    """Gives back the folder of a run that failed before it wrote anything."""
    if run.is_dir() and not any(run.iterdir()):
        shutil.rmtree(run)
