"""Answers that others have scored, dealt by prompt into what a judge learns from and what it is measured on.

The records are those of a file; only who is held out is drawn. What they must look like is told in
text/judging/judgments.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from statistics import median_low

from worlds.world import World


class RecordedScores(World):
    """Records of judgements with one response each.

    Splits: `train`, and `val` and `test`, which are the same: all answers to the prompts that are held out. A judge
    learns the median of several scores, and is measured against their mean.

    Args:
        file: records (.jsonl) with ``instruction``, ``response``, ``rubric`` and ``scores``, such as the answers to
            Vicuna's prompts that arXiv 2405.01535 measures judges on.
        rubric: judge all answers by this one, in place of each record's own.
        held_out: prompts that are held out.
        seed: draws them.
    """

    def __init__(self, file: str, rubric: dict[str, str] | None = None, held_out: int = 20, seed: int = 0):
        self.file, self.rubric, self.held_out, self.seed = file, rubric, held_out, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `val` or `test`."""
        if split not in ("train", "val", "test"):
            raise ValueError(f"there are the splits train, val and test, not '{split}'")
        rows = self._rows()
        prompts = list(dict.fromkeys(row.get("instruction") for row in rows))
        if not 0 < self.held_out < len(prompts):
            raise ValueError(f"held_out is {self.held_out}: from 1 to {len(prompts) - 1}, of {len(prompts)} prompts")
        apart = set(Random(f"{self.seed} held out").sample(prompts, self.held_out))
        other = {} if self.rubric is None else {"rubric": self.rubric}
        return [_learnt(row) | other for row in rows if (row.get("instruction") in apart) == (split != "train")]

    def _rows(self) -> list[dict]:
        path = Path(self.file).expanduser()
        if not path.is_file():
            raise ValueError(f"{path} is not there: give 'file', answers with their scores (docs/biggen_bench.md)")
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: invalid JSON: {error}") from error
            if not isinstance(rows[-1], dict):
                raise ValueError(f"{path}:{number}: must be an object, an answer with its scores")
        return rows


def _learnt(row: dict) -> dict:
    """A record with the one score that is taught: of an even number the lower of the two in the middle."""
    scores = row.get("scores")
    return row if not scores or "score" in row else row | {"score": median_low(scores)}
