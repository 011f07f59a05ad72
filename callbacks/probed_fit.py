"""One fit whose knowledge is measured: at which steps, where scores go, and the report at its end.

Knows injections, steps and the trace. It does not know how probes are scored (callbacks/probe_scores.py), how a trace
is stored (metrics/knowledge/trace.py) or what it means (metrics/knowledge/report.py).
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.knowledge_injection import KnowledgeInjection
from callbacks.probe_scores import ProbeScores
from lm.tokens.tokenizer import tokenizer_sha256
from metrics.knowledge.figures import curves_figure, retention_figure
from metrics.knowledge.report import final_scalars, knowledge_report, write_report
from metrics.knowledge.steps import measured_steps
from metrics.knowledge.trace import KnowledgeTrace

log = logging.getLogger(__name__)


class ProbedFit:
    """A fit from its start, or from the checkpoint that it goes on from; opens the trace <log_dir>/knowledge/trace.

    t = global_step - start_step of `KnowledgeInjection`. The trace is on rank 0 alone.

    Args:
        trainer: of the fit.
        scores: of the probes, which are laid out.
        window: steps after each exposure that are all measured.
        every: measure all multiples of it as well.
        log_points_per_decade: density of the measured steps after the last exposure.
    """

    def __init__(
        self, trainer: Trainer, scores: ProbeScores, window: int, every: int | None, log_points_per_decade: int
    ):
        injection = next((c for c in trainer.callbacks if isinstance(c, KnowledgeInjection)), None)
        self.scores, self.window, self.every = scores, window, every
        self.exposures = injection.exposures if injection else {}
        self.enabled = injection is not None and injection.enabled
        self.start_step = injection.schedule.start_step if injection else 0
        times = (t for steps in self.exposures.values() for t in steps)
        self.schedule = measured_steps(times, window, log_points_per_decade)
        self.last = -1
        self.trace: KnowledgeTrace | None = None
        self.measured_before = False
        log_dir = None if trainer.fast_dev_run else trainer.log_dir  # agreed between ranks: every rank has to ask
        if trainer.is_global_zero:
            # fast_dev_run leaves nothing behind, but walks the whole way.
            self.scratch = None if log_dir else tempfile.TemporaryDirectory(prefix="knowledge_")
            self.folder = Path(self.scratch.name if self.scratch else str(log_dir)) / "knowledge"
            self.measured_before = self._measured_before(trainer)
            self.trace = self._open_trace(trainer)
            first = self.trace.scores[0] if 0 in self.trace.steps[:1] else None
            self.at_start = {} if first is None else scores.means(first)

    def measure(self, trainer: Trainer, pl_module: LightningModule, final: bool = False, logged: bool = False) -> None:
        """Scores and stores, if t is due and not measured yet; logs it, unless this run's log has it already."""
        t = trainer.global_step - self.start_step
        due = final or t in self.schedule or (self.every is not None and t % self.every == 0)
        if t <= self.last or not due:
            return
        self.last = t
        began = time.perf_counter()
        scores_QC = self.scores.score(trainer, pl_module)
        if self.trace is None:
            return
        self.trace.append(t, scores_QC)
        if t == 0:
            self.at_start = self.scores.means(scores_QC)
        if logged:
            return
        scalars = {"probe/seconds_per_pass": time.perf_counter() - began}
        for cell, value in self.scores.means(scores_QC).items():
            scalars[f"probe/{cell}/logprob"] = value
            if cell in self.at_start:
                scalars[f"probe/{cell}/delta"] = value - self.at_start[cell]
        for logger in trainer.loggers:  # at this step, whatever `log_every_n_steps` says
            logger.log_metrics(scalars, step=trainer.global_step)

    def report(self, trainer: Trainer) -> None:
        """Files in the run folder, figures in TensorBoard, scalars among the run's final metrics."""
        if self.trace is None:
            return
        if not len(self.trace):
            log.warning("no knowledge report: the run ended before t = 0, which is step %d", self.start_step)
            return
        report = knowledge_report([self.trace], span_reduction=self.scores.span_reduction)
        path = write_report(report, self.folder)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in final_scalars(report).items()})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, figure in (("curves", curves_figure(report)), ("retention", retention_figure(report))):
                    logger.experiment.add_figure(f"knowledge/{name}", figure, trainer.global_step)
        if self.scratch is not None:
            self.scratch.cleanup()
            return
        print(f"Knowledge report: {path}\nIts pictures: {path.parent}/curves.png, {path.parent}/retention.png")

    def _measured_before(self, trainer: Trainer) -> bool:
        """Whether the run that goes on has measured, in this folder, the step it goes on from."""
        folder, t = self.folder / "trace", trainer.global_step - self.start_step
        goes_on = trainer.ckpt_path is not None and (folder / "header.json").is_file()
        return goes_on and t in KnowledgeTrace.open(folder).steps

    def _open_trace(self, trainer: Trainer) -> KnowledgeTrace:
        """A new trace, or that of the run that goes on, without what was measured from here on."""
        folder, t = self.folder / "trace", trainer.global_step - self.start_step
        header, table = self._header(trainer), self.scores.probes.table
        if t <= 0:
            return KnowledgeTrace.create(folder, header, table)
        earlier = Path(trainer.ckpt_path).parent.parent / "knowledge" / "trace" if trainer.ckpt_path else folder
        return KnowledgeTrace.go_on(folder, earlier, header, table, t)

    def _header(self, trainer: Trainer) -> dict[str, Any]:
        """What the run was; see `metrics.knowledge.trace.HEADER`."""
        data, facts = trainer.datamodule, trainer.datamodule.facts
        return {
            "batch_size": data.batch_size,
            "seq_len": data.seq_len,
            "tokens_per_step": data.batch_size * data.seq_len,
            "world_size": trainer.world_size,
            "window": self.window,
            "start_step": self.start_step,
            "injection_steps": {fact.id: self.exposures.get(fact.id, []) for fact in facts},
            "enabled": self.enabled,
            "n_injected": sum(map(len, self.exposures.values())) if self.enabled else 0,
            "channels": list(self.scores.probes.channels),
            "seeds": {"data": data.seed, "model": int(os.environ.get("PL_GLOBAL_SEED", 0))},
            "knowledge_sha256": facts.sha256,
            "tokenizer_sha256": tokenizer_sha256(data.tokenizer),
        }
