"""``skipped.jsonl`` in the folder of a run: each record whose video cannot be shown, and why, as soon as it is known.

Every rank writes a file of its own and counts what is in those of all: how many videos may be left out is asked in the
thread of a loader, where ranks cannot wait for one another. A run that goes on keeps them, on however many ranks, and
leaves out again what stands in a rank's own file: what other ranks could not show it may, as before. It does not know
what is shown (lm/vision/clips.py).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lightning.pytorch import Trainer

from lm.files.checkpoint_files import has_checkpoints
from lm.steps.gather import ranks
from text.json_lines import json_line
from video.faults import Kind, VideoError


class SkippedLog:
    """What a run leaves out.

    Args:
        folder: of the run.
        rank: of this process.
        world_size: ranks.
        goes_on: whether the run has begun before; else what lies in the folder is of another, and removed.
    """

    def __init__(self, folder: Path, rank: int = 0, world_size: int = 1, goes_on: bool = False):
        self.folder, self.rank, self.world_size = folder, rank, world_size
        self.own = folder / (f"skipped.rank{rank}.jsonl" if rank else "skipped.jsonl")
        for path in [] if goes_on else self._files(own=True):
            path.unlink()

    @classmethod
    def of(cls, trainer: Trainer | None) -> SkippedLog | None:
        """That of a run; None if it has no folder. Every rank has to ask: they agree on it."""
        if trainer is None or not (folder := trainer.log_dir):
            return None
        return cls(Path(folder), *ranks(), goes_on=has_checkpoints(trainer) or trainer.global_step > 0)

    def add(self, split: str, name: str, error: VideoError) -> int:
        """Write down a record, once on each rank; returns how many of its split are left out by now, on all ranks.

        Args:
            split: in which it is.
            name: of the record.
            error: why it is left out.
        """
        if name not in self.kinds(split, own=True):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.own.open("a", encoding="utf-8") as file:
                file.write(json_line({"id": name, "split": split, "kind": error.kind, "why": str(error)}))
        return len(self.kinds(split))

    def kinds(self, split: str, own: bool = False) -> dict[str, Kind]:
        """What is wrong with each record of a split that is left out, by its name.

        Args:
            split: in which they are.
            own: those alone that this rank has left out, or a rank that is there no more.
        """
        there = (path.read_text(encoding="utf-8") for path in self._files(own))
        rows = [json.loads(line) for text in there for line in text.split("\n")[:-1]]  # behind: written at this moment
        return {row["id"]: row["kind"] for row in rows if row["split"] == split}

    def _files(self, own: bool = False) -> list[Path]:
        files = sorted(self.folder.glob("skipped*.jsonl"))
        return [path for path in files if not own or _rank(path) % self.world_size == self.rank]


def _rank(path: Path) -> int:
    """Whose file it is."""
    found = re.search(r"\.rank(\d+)\.", path.name)
    return int(found[1]) if found else 0
