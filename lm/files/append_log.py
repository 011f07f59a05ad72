"""A file that grows line by line and is whole after any interruption: what a run that is broken off need not do again.

Every rank has a file of its own and reads those of all. A file belongs to whoever made what is in it, and says so in
its first line; each line carries a checksum of itself and of the file that it belongs to. This file does not know what
is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lm.files.made_by import not_taken


class AppendLog:
    """Things by key, on disk.

    Args:
        folder: is made when there is something to keep.
        kind: of the things, the beginning of the names of their files.
        made_by: what they depend on beside their keys, by the name of the dependence; what others made is not read.
    """

    def __init__(self, folder: str | Path, kind: str, made_by: Mapping[str, str]):
        self.folder, self.kind, self.made_by = Path(folder).expanduser(), kind, dict(made_by)
        self.name = f"{kind}.{_check(self.made_by, 16)}"

    @property
    def path(self) -> Path:
        """Where this rank writes; which rank it is may be settled later than the log is made."""
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        return self.folder / f"{self.name}.rank{rank}.jsonl"

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """What is there, of all ranks, and what has to be told about what was not taken.

        A last line that was broken off is cut from this rank's file. A line whose checksum is wrong is left out.
        """
        known: dict[str, Any] = {}
        told = []
        for path in sorted(self.folder.glob(f"{self.name}.rank*.jsonl")):
            if path == self.path:
                _cut_torn_line(path)
            broken = 0
            for line in path.read_bytes().split(b"\n")[:-1]:  # behind the last line break: written at this moment
                if (record := _checked(line, self.name)) is None:
                    broken += 1
                elif "key" in record:
                    known[record["key"]] = record["value"]
            if broken:
                told.append(f"{path}: {broken} lines are broken and are made anew")
        if not known:
            told += self._of_others()
        return known, told

    def append(self, things: Mapping[str, Any]) -> None:
        """Add some, in one write."""
        if not things:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [_line({"key": key, "value": value}, self.name) for key, value in things.items()]
        if not self.path.exists() or not self.path.stat().st_size:
            lines.insert(0, _line({"made_by": self.made_by}, self.name))
        with self.path.open("ab") as file:
            file.write(b"".join(lines))

    def _of_others(self) -> list[str]:
        """Why none of the files of this kind is taken, in a line."""
        others = []
        for path in self.folder.glob(f"{self.kind}.*.rank0.jsonl"):
            with path.open("rb") as file:
                first = _checked(file.readline().rstrip(b"\n"), path.name.removesuffix(".rank0.jsonl"))
            others.append((first or {}).get("made_by") or self.made_by)  # nobody knows who wrote a broken line
        told = not_taken(self.kind, self.folder, self.made_by, others)
        return [] if told is None else [told]


def _line(record: Mapping[str, Any], name: str) -> bytes:
    return json.dumps({"check": _check([name, record], 8), **record}).encode() + b"\n"


def _check(what: Any, letters: int) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:letters]


def _checked(line: bytes, name: str) -> dict[str, Any] | None:
    """What a line of a file holds; None if it is not as it was written there."""
    try:
        record = json.loads(line)
        check = record.pop("check")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if check == _check([name, record], 8) else None


def _cut_torn_line(path: Path) -> None:
    """Leave a file that ends with a line break, without writing any of it again."""
    with path.open("r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
