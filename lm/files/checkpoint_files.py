"""Which checkpoints there are, the order in which they were made, and whether they are as they were written.

Knows files and folders of shards, and reads no weights but to see that they are whole. It does not know what is in them
(lm/backbones/checkpoints.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from text.whole_files import file_sha256

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

SHARDED_REST = "meta.pt"
"""The file in a sharded folder that holds everything but weights and optimizer state."""
CHECKSUMS = "checksums."
"""The beginning of the names of files in a sharded folder that hold the hashes of the others."""
SETTLED = 2.0  # seconds after which a file that is written again has another time
WHOLE, REMEMBERED = "SEEDLING_WHOLE", 64
"""The environment variable in which processes tell those that they start which checkpoints are whole; how many."""


def has_checkpoints(trainer: Trainer) -> bool:
    """Whether there is a run already in the folder, whose files are not to be touched yet; on every rank alike."""
    folder = trainer.log_dir
    return trainer.strategy.broadcast(folder is not None and any(Path(folder, "checkpoints").glob("*.ckpt")))


def by_step(checkpoints: Iterable[Path]) -> list[Path]:
    """Those that can be read, the one with the most steps first; of several at one step the one written last."""
    found = []
    for path in checkpoints:
        with suppress(FileNotFoundError):  # a run that is alive deletes those that are outdated
            if (header := read_header(path)) is not None:
                found.append((header["global_step"], path.stat().st_mtime_ns, path))
    return [path for *_, path in sorted(found, reverse=True)]


def read_header(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint (file, or directory of shards) holds; tensors stay on disk. None when it cannot be read."""
    file = checkpoint / SHARDED_REST if checkpoint.is_dir() else checkpoint
    try:
        header = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError):
        return None
    return header if isinstance(header, dict) and isinstance(header.get("global_step"), int) else None


def write_checksums(folder: Path, rank: int) -> None:
    """Note the hash of files of a sharded checkpoint: each rank of its own shards, the first of what no rank owns too.

    What other ranks note meanwhile is left out: it may be half written.
    """
    names = {path.name for path in folder.iterdir() if not path.name.startswith(CHECKSUMS)}
    mine = {name for name in names if name.startswith(f"__{rank}_") or (rank == 0 and not name.startswith("__"))}
    noted = {name: file_sha256(folder / name) for name in sorted(mine)}
    with (folder / f"{CHECKSUMS}{rank}.json").open("w", encoding="utf-8") as file:
        json.dump(noted, file)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint that was cut, zeroed or mixed up on its disk; None if all of it is as written.

    Every byte is read: torch checks nothing of the kind, and trains on with what it finds. What was whole is not read
    again as long as its files look the same, neither by this process nor by those that it starts (the other ranks).
    """
    try:
        looks, written = _looks(checkpoint)
    except OSError as error:
        return str(error)
    if looks in (known := os.environ.get(WHOLE, "").split()):
        return None
    if (what := _damaged_shards(checkpoint) if checkpoint.is_dir() else _damaged_file(checkpoint)) is None and (
        time.time() - written > SETTLED
    ):
        os.environ[WHOLE] = " ".join([*known, looks][-REMEMBERED:])
    return what


def _looks(checkpoint: Path) -> tuple[str, float]:
    """What changes with where the files of a checkpoint are, their sizes and times; and when the last was written."""
    files = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else [checkpoint]
    seen = [(str(path.absolute()), at.st_ino, at.st_size, at.st_mtime_ns) for path in files for at in [path.stat()]]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32], max((at for *_, at in seen), default=0) / 1e9


def _damaged_file(checkpoint: Path) -> str | None:
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            if (entry := archive.testzip()) is not None:
                return f"its part {entry} is not as it was written"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return str(error)
    return None


def _damaged_shards(folder: Path) -> str | None:
    noted: dict[str, str] = {}
    for file in folder.glob(f"{CHECKSUMS}*.json"):
        try:
            noted |= json.loads(file.read_bytes())
        except ValueError:
            return f"{file.name} is not as it was written"
    for name, expected in noted.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_sha256(folder / name) != expected:
            return f"{name} is not as it was written"
    if noted and (strange := {path.name for path in folder.glob("__*")} - noted.keys()):
        return f"nothing tells how {min(strange)} was written"
    return None if noted else _damaged_file(folder / SHARDED_REST)  # written elsewhere
