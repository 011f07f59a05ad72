"""Pools the traces of several runs into one report: crossed rotations, seeds, paired control runs (arXiv 2406.11813).

A method without weights: `python main.py test --config configs/knowledge_probe/report.yaml`. This file knows when a
report is made and where it goes. It does not know where traces come from (datamodules/knowledge_traces.py) or what
they say (metrics/knowledge/report.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningModule

from metrics.knowledge.report import final_scalars, knowledge_report, write_report
from metrics.knowledge.statistics import Settings
from metrics.knowledge.trace import KnowledgeTrace


class KnowledgeReport(LightningModule):
    """Writes report.md, report.json, curves.png and retention.png into <run folder>/knowledge, logs the final scalars.

    Args:
        span_reduction: a probe's score is the mean or the sum over its target tokens. The paper's numbers are means.
        iqr_factor: outliers lie beyond this many interquartile ranges. 1.5 in the paper, 2.0 in its code.
        min_gain: probes that gained no more than this many nats have no retainability.
        resamples: bootstrap draws of passages behind each interval.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        span_reduction: Literal["mean", "sum"] = "mean",
        iqr_factor: float = 1.5,
        min_gain: float = 1e-3,
        resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__()
        self.span_reduction = span_reduction
        self.settings = Settings(iqr_factor=iqr_factor, min_gain=min_gain, resamples=resamples, seed=seed)

    def on_test_start(self) -> None:
        """Keep Lightning's table of results off the screen: hundreds of scalars, and report.md shows them in order."""
        self.trainer.test_loop.verbose = False

    def test_step(self, batch: tuple[list[KnowledgeTrace], list[KnowledgeTrace]], batch_idx: int) -> None:
        """Make the report of all traces and their controls: there is one batch."""
        traces, controls = batch
        report = knowledge_report(traces, controls, self.span_reduction, self.settings)
        self.log_dict(final_scalars(report), batch_size=1, rank_zero_only=True)
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if log_dir is not None and self.trainer.is_global_zero:
            print(f"Knowledge report: {write_report(report, Path(log_dir) / 'knowledge')}")
