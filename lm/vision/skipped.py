"""``skipped.jsonl`` in the folder of a run: each record whose video cannot be shown, and why, as soon as it is known.

Every rank writes a file of its own and counts what is in those of all: how many videos may be left out is asked in the
thread of a loader, where ranks cannot wait for one another. It does not know what is shown (lm/vision/clips.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import Trainer

from lm.steps.gather import ranks
from text.json_lines import json_line
from video.faults import VideoError


class SkippedLog:
    """What a run leaves out.

    Args:
        folder: of the run.
        rank: of this process; what it wrote before is forgotten.
        world_size: ranks.
    """

    def __init__(self, folder: Path, rank: int = 0, world_size: int = 1):
        self.paths = [folder / (f"skipped.rank{n}.jsonl" if n else "skipped.jsonl") for n in range(world_size)]
        self.own = self.paths[rank]
        self.own.unlink(missing_ok=True)

    @classmethod
    def of(cls, trainer: Trainer | None) -> SkippedLog | None:
        """That of a run; None if it has no folder. Every rank has to ask: they agree on it."""
        folder = trainer and trainer.log_dir
        return None if not folder else cls(Path(folder), *ranks())

    def add(self, split: str, name: str, error: VideoError) -> int:
        """Write down a record; returns how many of its split are left out by now, on all ranks.

        Args:
            split: in which it is.
            name: of the record.
            error: why it is left out.
        """
        self.own.parent.mkdir(parents=True, exist_ok=True)
        with self.own.open("a", encoding="utf-8") as file:
            file.write(json_line({"id": name, "split": split, "kind": error.kind, "why": str(error)}))
        return len({told["id"] for told in self._read() if told["split"] == split})

    def _read(self) -> list[dict[str, str]]:
        there = (path.read_text(encoding="utf-8") for path in self.paths if path.exists())
        return [json.loads(line) for text in there for line in text.split("\n")[:-1]]  # behind: written at this moment
