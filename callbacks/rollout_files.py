"""Writes what a stage of Self-Explore made, whole at its end.

It knows results, ranks and files. It does not know how anything was made, or what is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.run_folders import atomic_write
from lm.forests.batches import PromptBatch
from lm.steps.gather import merge_over_ranks
from metrics.reasoning.reasoning import accuracy_report
from text.json_lines import json_line, plain
from text.records import Record


class RolloutFiles(Callback):
    """Writes ``<run folder>/<name>.jsonl`` for whatever the module makes of its results, and ``counts.json``.

    `test` leaves ``answers.jsonl``: id, answer, gold and correct of every question, where a comparison of two models
    needs more than a mean; and ``report.md``, accuracy by subject and level. A module that reports by itself hands over
    no answers, and nothing is left.

    The files of the run appear when they are whole, and are the same for any number of ranks and any batches. What was
    drawn before an interruption is in the cache (lm/generation/kept_answers.py).
    """

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is made yet."""
        self.results = {}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PromptBatch, batch_idx: int, *_: Any
    ) -> None:
        """Keeps the results of a batch."""
        self.results |= zip(batch.rows, outputs, strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the results of all ranks together, and writes what the module makes of them."""
        merged = merge_over_ranks(self.results)
        log_dir = trainer.log_dir  # agreed between ranks: every rank has to ask
        if not trainer.is_global_zero:
            return
        if earlier := pl_module.engine.earlier:  # type: ignore[union-attr]
            print(f"{type(pl_module).__name__}: {earlier} samples of an earlier run are in {pl_module.engine.folder}")  # type: ignore[union-attr]
        files, counts = pl_module.files([merged[row] for row in sorted(merged)])  # type: ignore[operator]
        pl_module.results = counts
        for name, value in counts.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
        if log_dir is None:  # fast_dev_run
            return
        for name, records in files.items():
            _write_lines(Path(log_dir) / f"{name}.jsonl", records)
        with atomic_write(Path(log_dir) / "counts.json") as file:
            json.dump(plain(counts | {"model": pl_module.model_name}), file, indent=1, sort_keys=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is answered yet."""
        self.results = {}

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PromptBatch, batch_idx: int, *_: Any
    ) -> None:
        """Keeps the answers to some questions; a module that reports by itself gives none."""
        if outputs is None:
            return
        self.results |= zip(batch.rows, outputs["answers"], strict=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the answers of all ranks, in the order of the questions."""
        merged = merge_over_ranks(self.results)
        log_dir = trainer.log_dir
        if trainer.is_global_zero and log_dir is not None and merged:
            answers = [merged[row] for row in sorted(merged)]
            _write_lines(Path(log_dir) / "answers.jsonl", answers)
            with atomic_write(Path(log_dir) / "report.md") as file:
                file.write(accuracy_report(answers))


def _write_lines(path: Path, records: Sequence[Record]) -> None:
    with atomic_write(path) as file:
        file.writelines(json_line(record.model_dump(exclude_none=True)) for record in records)
