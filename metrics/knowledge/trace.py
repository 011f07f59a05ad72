"""The trace of a run: every probe's scores at every measured step, on disk, safe against a kill at any byte.

A folder of three files:

    header.json    what the run was: schedule, batch, hashes (HEADER below)
    probes.jsonl   one row per probe: record, scenario, type, index, n_target_tokens
    scores.bin     one fixed-size record per measured step: int64 step, float32 scores [n_probes, n_channels]

Steps are only ever appended, one write each, and how many there are follows from the size of the file alone. So a torn
last record is recognised, ignored, and overwritten by the next step; a single `.npy` would need its header rewritten
with every step, and two files could disagree. From a notebook, without this class:
`np.fromfile("scores.bin", [("step", "<i8"), ("scores", "<f4", (n_probes, n_channels))])`.

This file knows bytes. It does not know how probes are scored (lm/probing/probes.py) nor what the numbers mean
(metrics/knowledge/definitions.py).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np

from text.errors import UserError
from text.json_lines import json_line, read_json_lines
from text.whole_files import write_text

log = logging.getLogger(__name__)

VERSION = 1

# What a reader of the trace may rely on. Time t counts optimizer steps from the start of the schedule: t = 0 is
# measured before the first update, and an injection at t is in the batch of update t (arXiv 2406.11813, Definition 1).
HEADER = {
    "batch_size": "rows of the global batch",
    "seq_len": "tokens of a row",
    "tokens_per_step": "batch_size * seq_len",
    "window": "w of Definition 1, steps",
    "injection_steps": "{record id: [t of its first exposure, t of the second, ...]} as scheduled; [] when it has none",
    "enabled": "false in a control run: probed on the same schedule, never injected",
    "channels": "names of the columns of a score",
    "seeds": "{what: seed}: runs with equal seeds see the same rows and start from the same weights",
    "knowledge_sha256": "of the file of facts",
    "tokenizer_sha256": "of the tokenizer",
}


class KnowledgeTrace:
    """Scores over time, float32 [n_steps, n_probes, n_channels] nats, appended step by step.

    Make one with `create` (new run), `resume` (go on with a run) or `open` (read).

    Attributes:
        folder: where it lives.
        header: what the run was; `HEADER` lists the fields that are always there.
        table: one row per probe, in the order of the second axis of `scores`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.header: dict = json.loads((self.folder / "header.json").read_text())
        self.table: list[dict] = read_json_lines(self.folder / "probes.jsonl")
        shape = (len(self.table), len(self.header["channels"]))
        self._record = np.dtype([("step", "<i8"), ("scores", "<f4", shape)])

    @classmethod
    def create(cls, folder: str | Path, header: dict, table: list[dict]) -> KnowledgeTrace:
        """Start an empty trace; one that is already there is replaced."""
        if missing := sorted(set(HEADER) - set(header)):
            raise ValueError(f"the header of a knowledge trace lacks {', '.join(missing)}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "header.json").unlink(missing_ok=True)  # without a header there is no trace: a kill below leaves none
        (folder / "scores.bin").write_bytes(b"")
        write_text(folder / "probes.jsonl", "".join(json_line(row) for row in table))
        write_text(folder / "header.json", json.dumps({**header, "version": VERSION}, indent=1, sort_keys=True) + "\n")
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path) -> KnowledgeTrace:
        """Read the trace in `folder`.

        Raises:
            UserError: there is none, or another version of Seedling wrote it.
        """
        folder = Path(folder)
        if not (folder / "header.json").is_file():
            raise UserError(
                f"{folder}: no knowledge trace here (it would hold header.json, probes.jsonl and scores.bin)"
            )
        trace = cls(folder)
        if trace.header["version"] != VERSION:
            raise UserError(
                f"{folder}: a trace of format {trace.header['version']}; this version of Seedling reads {VERSION}"
            )
        return trace

    @classmethod
    def resume(cls, folder: str | Path, header: dict, table: list[dict], step: int) -> KnowledgeTrace:
        """Go on with the trace in `folder` from a checkpoint at `step`; what was measured from there on is dropped.

        Raises:
            UserError: the trace was made by another setting; the message names the field and both values.
        """
        trace = cls.open(folder)
        old = {**trace.header, "probes": trace.table}
        new = json.loads(json.dumps({**header, "version": VERSION, "probes": table}))
        for field in sorted(set(old) | set(new)):
            # A run may go on with another number of ranks: the global batch is the same.
            if field != "world_size" and old.get(field) != new.get(field):
                raise UserError(
                    f"{folder}: cannot resume, {_difference(field, old.get(field), new.get(field))}. "
                    "Go on with the settings of that run, or start a new one"
                )
        trace.truncate(step)
        return trace

    @classmethod
    def go_on(cls, folder: Path, earlier: Path, header: dict, table: list[dict], step: int) -> KnowledgeTrace:
        """`resume` in `folder`, with a copy of an `earlier` run's trace if there is none; a new one without either."""
        if not folder.exists() and earlier.exists():
            shutil.copytree(earlier, folder)
        if not folder.exists():
            log.warning("no trace in %s: this one begins at t = %d", earlier, step)
            return cls.create(folder, header, table)
        return cls.resume(folder, header, table, step)

    def __len__(self) -> int:
        """Number of measured steps; a torn last record does not count."""
        return (self.folder / "scores.bin").stat().st_size // self._record.itemsize

    def append(self, step: int, scores: np.ndarray) -> None:
        """Add the scores [n_probes, n_channels] measured at `step` and hand them to the operating system.

        Raises:
            ValueError: `step` does not come after the last one, or the shape is not the table's.
        """
        n = len(self)
        if n and step <= (last := self.steps[-1]):
            raise ValueError(f"step {step} cannot follow step {last}, which is already in the trace")
        record = np.zeros((), self._record)
        if np.shape(scores) != record["scores"].shape:
            raise ValueError(f"scores of shape {np.shape(scores)} in a trace of {record['scores'].shape}")
        record["step"], record["scores"] = step, scores
        with (self.folder / "scores.bin").open("r+b") as file:
            file.seek(n * self._record.itemsize)
            file.write(record.tobytes())

    def truncate(self, step: int) -> None:
        """Drop everything measured at `step` or later."""
        keep = int(np.searchsorted(self.steps, step))
        os.truncate(self.folder / "scores.bin", keep * self._record.itemsize)

    @property
    def steps(self) -> np.ndarray:
        """Measured steps, int64 [n_steps], increasing."""
        if not (n := len(self)):
            return np.zeros(0, np.int64)
        return np.array(np.memmap(self.folder / "scores.bin", self._record, mode="r", shape=n)["step"])

    @property
    def scores(self) -> np.ndarray:
        """All scores, float32 [n_steps, n_probes, n_channels]. Read from disk at each call."""
        return np.fromfile(self.folder / "scores.bin", self._record, count=len(self))["scores"]

    def channel(self, name: str) -> np.ndarray:
        """One column of the scores, float64 [n_steps, n_probes]."""
        return self.scores[:, :, self.header["channels"].index(name)].astype(np.float64)


def _difference(field: str, old, new) -> str:
    """Name the innermost value that differs, so that two long tables do not land on the screen."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted(set(old) | set(new)) if old.get(key) != new.get(key))
        return _difference(f"{field}.{key}", old.get(key), new.get(key))
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"field '{field}' has {len(old)} items there and {len(new)} now"
        index = next(i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
        return _difference(f"{field}[{index}]", old[index], new[index])
    return f"field '{field}' is {old!r} there and {new!r} now"
