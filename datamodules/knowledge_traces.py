"""The traces that runs left behind, as data: folders in, opened traces out.

This file knows where a run keeps its trace. It does not know what is in one (metrics/knowledge/trace.py).
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lm.files.hyperparameters import PlainHyperparameters
from metrics.knowledge.trace import KnowledgeTrace
from text.errors import UserError

TRACE = Path("knowledge") / "trace"  # in a run folder


class KnowledgeTraces(PlainHyperparameters, LightningDataModule):
    """One batch: the traces of several runs, and those of their control runs.

    Args:
        traces: run folders (`runs/knowledge_probe/mini/version_3`), folders of runs (`runs/knowledge_probe/mini`: the
            newest run with a trace counts), trace folders, or globs of these.
        controls: the same for paired runs in which nothing was injected.
    """

    def __init__(self, traces: list[str], controls: list[str] | None = None):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.traces = list(traces)
        self.controls = list(controls or [])

    def test_dataloader(self) -> DataLoader:
        """A single batch `(traces, controls)`, two lists of opened traces."""
        traces, controls = ([KnowledgeTrace.open(f) for f in _folders(paths)] for paths in (self.traces, self.controls))
        batches: Any = [(traces, controls)]
        return DataLoader(batches, batch_size=None)


def _folders(paths: list[str]) -> list[Path]:
    """The trace folder of every path, a trace once."""
    folders = [_trace_folder(Path(match)) for path in paths for match in _matches(path)]
    return list(dict.fromkeys(folders))


def _matches(path: str) -> list[str]:
    """What a path or glob stands for."""
    found = [path] if Path(path).exists() else sorted(glob.glob(path))
    if not found:
        parent = Path(path).parent
        near = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
        there = f"; {parent} holds {', '.join(near[:8])}" if near else ""
        raise UserError(f"{path}: no such folder{there}. Give folders of runs that probed knowledge")
    return found


def _trace_folder(path: Path) -> Path:
    """Where a run, or the newest run of a folder of runs, keeps its trace."""
    versions = [run for run in path.glob("version_*") if run.name.removeprefix("version_").isdecimal()]
    newest_first = sorted(versions, key=lambda run: int(run.name.removeprefix("version_")), reverse=True)
    for folder in (path, path / TRACE, *(run / TRACE for run in newest_first)):
        if (folder / "header.json").is_file():
            return folder
    raise UserError(
        f"{path}: no knowledge trace here, in {TRACE} or in version_*/{TRACE}. "
        "A run leaves one when its config has the callback KnowledgeProbing"
    )
