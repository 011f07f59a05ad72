"""A file that grows line by line and is whole after any interruption: what a run that is broken off need not do again.

Every rank has a file of its own and reads those of all. This file does not know what is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from text.errors import UserError


class AppendLog:
    """Things by name, on disk.

    Args:
        folder: is made when there is something to keep.
        name: of the files, without ``.jsonl``.
        what: is kept, for messages.
    """

    def __init__(self, folder: str | Path, name: str, what: str):
        self.folder, self.name, self.what = Path(folder).expanduser(), name, what

    @property
    def path(self) -> Path:
        """Where this rank writes; which rank it is may be settled later than the log is made."""
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        return self.folder / (f"{self.name}.rank{rank}.jsonl" if rank else f"{self.name}.jsonl")

    def read(self) -> dict[str, dict[str, Any]]:
        """What is there, of all ranks; a last line that was broken off is cut from this rank's file.

        Raises:
            UserError: for another line that is none of ours.
        """
        known = {}
        for path in sorted({*self.folder.glob(f"{self.name}.rank*.jsonl"), self.folder / f"{self.name}.jsonl"}):
            if not path.exists():
                continue
            whole, _, rest = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
            for number, line in enumerate(whole.split("\n") if whole else [], 1):
                try:
                    record = json.loads(line)
                    known[record.pop("key")] = record
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise UserError(f"{path}:{number}: not {self.what}: {error!r}. Remove the file") from error
            if rest and path == self.path:
                path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        return known

    def append(self, things: Mapping[str, Mapping[str, Any]]) -> None:
        """Add some, in one write."""
        if not things:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps({"key": key} | dict(thing)) + "\n" for key, thing in things.items()))
