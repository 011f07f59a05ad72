"""Measures, while a model trains, how well it knows each fact (arXiv 2406.11813, sections 3 and 4).

Probes are scored between two updates and leave no mark on training: no dropout, no gradients, no random numbers, modes
put back. This file knows when to measure and where the numbers go. It does not know how probes are scored
(lm/probing/probes.py), how a trace is stored (metrics/knowledge/trace.py) or what it means
(metrics/knowledge/report.py).
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from callbacks.knowledge_injection import KnowledgeInjection
from callbacks.run_folders import atomic_write
from lm.backbones.evaluating import evaluating
from lm.forests.forest import Forest
from lm.probing.greedy_checks import CHECKS, check_probes, check_scalars
from lm.probing.probes import ProbeSet
from lm.protocols import HasFacts, ScoresForests
from lm.tokens.tokenizer import tokenizer_sha256
from metrics.knowledge.figures import curves_figure, retention_figure
from metrics.knowledge.report import final_scalars, knowledge_report, write_report
from metrics.knowledge.steps import measured_steps
from metrics.knowledge.trace import KnowledgeTrace
from text.errors import UserError
from text.json_lines import json_line

log = logging.getLogger(__name__)


class KnowledgeProbing(Callback):
    """Scores every probe at t = 0 and after measured updates; at the end of a fit writes <log_dir>/knowledge/.

    t = global_step - start_step of `KnowledgeInjection`, and the model measured at t is the one after t updates
    (Definition 1). `validate` probes the checkpoint once and prints the means, `predict` writes every score to
    <log_dir>/knowledge/probes.jsonl.

    Args:
        dense_window: steps after each exposure that are all measured; also the window w in which the local acquisition
            maximum is sought (50 in the paper: 0.9^50, Adam's memory of the batch, is next to nothing).
        every: measure all multiples of it as well (1 = the paper).
        log_points_per_decade: density of the measured steps after the last exposure.
        span_reduction: what the report calls the score of a probe: mean or sum over the tokens of its target.
        swapped_targets: also score each probe with the target of another record (specificity).
        contexts: also score the words before the target (channel `full`). The output head then runs at each position:
            with V = 50k and a small model a pass takes three times as long, with V = 2k half as long again.
        max_context: keep only so many tokens before a target.
        score_passages: also score the whole passage of each fact, as a probe of the type `passage`. A pass takes about
            as much longer as passages are longer than probes.
        generate_check: at the last step also let the model say each target (lm/probing/greedy_checks.py):
            `probe/exact_match`, the share of probes whose context it goes on from with the target, and
            `probe/target_rank`, the mean place of the target's tokens among the vocabulary.
        max_batch_tokens: tokens of one forward.
    """

    def __init__(
        self,
        dense_window: int = 50,
        every: int | None = None,
        log_points_per_decade: int = 12,
        span_reduction: Literal["mean", "sum"] = "mean",
        swapped_targets: bool = False,
        contexts: bool = False,
        max_context: int | None = None,
        score_passages: bool = False,
        generate_check: bool = False,
        max_batch_tokens: int = 8192,
    ):
        if dense_window < 1 or log_points_per_decade < 1 or (every is not None and every < 1):
            raise UserError("KnowledgeProbing: dense_window, log_points_per_decade and every must be at least 1")
        self.dense_window = dense_window
        self.every = every
        self.log_points_per_decade = log_points_per_decade
        self.span_reduction = span_reduction
        self.build: dict[str, Any] = {
            "max_batch_tokens": max_batch_tokens,
            "contexts": contexts,
            "swapped": swapped_targets,
            "max_context": max_context,
            "passages": score_passages,
        }
        self.generate_check = generate_check
        self._trace: KnowledgeTrace | None = None

    # --- fit ------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the trace and measure where training starts: t = 0, or the step of a checkpoint."""
        injection = next((c for c in trainer.callbacks if isinstance(c, KnowledgeInjection)), None)
        exposures = injection.exposures if injection else {}
        self._probes = self._probe_set(trainer, pl_module)
        self._start_step = injection.schedule.start_step if injection else 0
        times = (t for steps in exposures.values() for t in steps)
        self._schedule = measured_steps(times, self.dense_window, self.log_points_per_decade)
        self._last = -1
        log_dir = None if trainer.fast_dev_run else trainer.log_dir  # agreed between ranks: every rank has to ask
        logged = False
        if trainer.is_global_zero:
            # fast_dev_run leaves nothing behind, but walks the whole way.
            self._scratch = None if log_dir else tempfile.TemporaryDirectory(prefix="knowledge_")
            self._folder = Path(self._scratch.name if self._scratch else str(log_dir)) / "knowledge"
            logged = self._measured_here(trainer)
            self._trace = self._open_trace(trainer, self._header(trainer, injection, exposures))
            first = self._trace.scores[0] if 0 in self._trace.steps[:1] else None
            self._at_start = {} if first is None else self._means(first)
        self._measure(trainer, pl_module, logged=logged)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Measure after the last micro-batch of an optimizer step."""
        self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final model, wherever the run ended."""
        self._measure(trainer, pl_module, final=True)
        scalars = self._checked(trainer, pl_module)
        for logger in trainer.loggers if scalars else []:
            logger.log_metrics(scalars, step=trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report: files in the run folder, figures in TensorBoard, scalars among the run's final metrics."""
        if self._trace is None:
            return
        if not len(self._trace):
            log.warning("no knowledge report: the run ended before t = 0, which is step %d", self._start_step)
            return
        report = knowledge_report([self._trace], span_reduction=self.span_reduction)
        path = write_report(report, self._folder)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in final_scalars(report).items()})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, figure in (("curves", curves_figure(report)), ("retention", retention_figure(report))):
                    logger.experiment.add_figure(f"knowledge/{name}", figure, trainer.global_step)
        if self._scratch is not None:
            self._scratch.cleanup()
            return
        print(f"Knowledge report: {path}\nIts pictures: {path.parent}/curves.png, {path.parent}/retention.png")

    def _measure(self, trainer: Trainer, pl_module: LightningModule, final: bool = False, logged: bool = False) -> None:
        """Score and store, if t is due and not measured yet; log it, unless this run's log has it already."""
        t = trainer.global_step - self._start_step
        due = final or t in self._schedule or (self.every is not None and t % self.every == 0)
        if t <= self._last or not due:
            return
        self._last = t
        began = time.perf_counter()
        scores_QC = self._score(trainer, pl_module, self._probes)
        if self._trace is None:
            return
        self._trace.append(t, scores_QC)
        if t == 0:
            self._at_start = self._means(scores_QC)
        if logged:
            return
        scalars = {"probe/seconds_per_pass": time.perf_counter() - began}
        for cell, value in self._means(scores_QC).items():
            scalars[f"probe/{cell}/logprob"] = value
            if cell in self._at_start:
                scalars[f"probe/{cell}/delta"] = value - self._at_start[cell]
        for logger in trainer.loggers:  # at this step, whatever `log_every_n_steps` says
            logger.log_metrics(scalars, step=trainer.global_step)

    # --- the trace ------------------------------------------------------------------------------------------------

    def _header(self, trainer: Trainer, injection: KnowledgeInjection | None, exposures: dict[str, list[int]]) -> dict:
        """What the run was; see `metrics.knowledge.trace.HEADER`."""
        data, facts = trainer.datamodule, trainer.datamodule.facts
        enabled = injection is not None and injection.enabled
        return {
            "batch_size": data.batch_size,
            "seq_len": data.seq_len,
            "tokens_per_step": data.batch_size * data.seq_len,
            "world_size": trainer.world_size,
            "window": self.dense_window,
            "start_step": self._start_step,
            "injection_steps": {fact.id: exposures.get(fact.id, []) for fact in facts},
            "enabled": enabled,
            "n_injected": sum(map(len, exposures.values())) if enabled else 0,
            "channels": list(self._probes.channels),
            "seeds": {"data": data.seed, "model": int(os.environ.get("PL_GLOBAL_SEED", 0))},
            "knowledge_sha256": facts.sha256,
            "tokenizer_sha256": tokenizer_sha256(data.tokenizer),
        }

    def _measured_here(self, trainer: Trainer) -> bool:
        """Whether the run that goes on has measured, in this folder, the step it goes on from."""
        folder, t = self._folder / "trace", trainer.global_step - self._start_step
        goes_on = trainer.ckpt_path is not None and (folder / "header.json").is_file()
        return goes_on and t in KnowledgeTrace.open(folder).steps

    def _open_trace(self, trainer: Trainer, header: dict) -> KnowledgeTrace:
        """A new trace, or that of the run that goes on, without what was measured from here on."""
        folder, t = self._folder / "trace", trainer.global_step - self._start_step
        if t <= 0:
            return KnowledgeTrace.create(folder, header, self._probes.table)
        earlier = Path(trainer.ckpt_path).parent.parent / "knowledge" / "trace" if trainer.ckpt_path else folder
        return KnowledgeTrace.go_on(folder, earlier, header, self._probes.table, t)

    # --- validate and predict -------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Under `validate`: one pass over the probes of a checkpoint."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        self._probes = self._probe_set(trainer, pl_module)
        means = self._means(self._score(trainer, pl_module, self._probes))
        trainer.callback_metrics.update({f"probe/{cell}/logprob": torch.tensor(mean) for cell, mean in means.items()})
        if trainer.is_global_zero:
            width = max(map(len, means))
            lines = [f"  {cell:<{width}}  {mean:9.4f}" for cell, mean in means.items()]
            print("\n".join(["Mean log-probability of a target (nats per token), by scenario and type:", *lines]))
        self._checked(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is known yet; the datamodule's forests bring the scores."""
        self._scores_QC = trainer.datamodule.probes.blank()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, batch: Forest, batch_idx: int, *_: Any
    ) -> None:
        """Take the scores of one forest."""
        probes = trainer.datamodule.probes
        number = probes.share(trainer.global_rank, trainer.world_size)[batch_idx]
        probes.fill(self._scores_QC, number, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one line per probe: its row in the table, its words, its scores."""
        data, probes, log_dir = trainer.datamodule, trainer.datamodule.probes, trainer.log_dir
        scores_QC = probes.merge(_gather(pl_module, torch.from_numpy(self._scores_QC)))
        if not trainer.is_global_zero or log_dir is None:
            return
        folder = Path(log_dir) / "knowledge"
        folder.mkdir(parents=True, exist_ok=True)
        asked = [probe for fact in data.facts for probe in fact.probes]
        with atomic_write(folder / "probes.jsonl") as file:
            for row, probe, scores in zip(probes.table, asked, scores_QC.tolist(), strict=True):
                named = dict(zip(probes.channels, scores, strict=True))
                file.write(json_line({**row, "input": probe.input, "target": probe.target, **named}))
        print(f"Scores of {len(asked)} probes: {folder / 'probes.jsonl'}")

    # --- scoring --------------------------------------------------------------------------------------------------

    def _probe_set(self, trainer: Trainer, pl_module: LightningModule) -> ProbeSet:
        data = trainer.datamodule
        if not isinstance(data, HasFacts) or data.facts is None:
            raise UserError("KnowledgeProbing has no facts to probe: give the data a 'knowledge' source of records")
        if not isinstance(pl_module, ScoresForests):
            raise UserError(f"KnowledgeProbing needs a model with forest_logprobs, not {type(pl_module).__name__}")
        return ProbeSet.build(data.facts, data.tokenizer, shards=trainer.world_size, **self.build)

    def _score(self, trainer: Trainer, pl_module: LightningModule, probes: ProbeSet) -> np.ndarray:
        """Scores [Q, C] of every probe, on every rank; training cannot tell that it happened."""
        model = cast(ScoresForests, pl_module)
        with evaluating(pl_module), isolate_rng(), trainer.precision_plugin.forward_context():
            return probes.score(
                lambda forest: model.forest_logprobs(forest.to(pl_module.device)), *_ranks(trainer, pl_module)
            )

    def _checked(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """The means of the generation check, noted among the run's final metrics; nothing if it is off."""
        if not self.generate_check:
            return {}
        module: Any = pl_module
        with evaluating(pl_module), isolate_rng(), trainer.precision_plugin.forward_context():
            found_Q2 = check_probes(self._probes, module.model, module.tokenizer, *_ranks(trainer, pl_module))
        scalars = check_scalars(self._probes, found_Q2)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scalars.items()})
        if trainer.is_global_zero:
            match, place = (scalars[f"probe/{name}"] for name in CHECKS)
            print(f"Targets that the model says by itself: {match:.1%}; mean rank of a target's tokens: {place:.1f}")
        return scalars

    def _means(self, scores_QC: np.ndarray) -> dict[str, float]:
        """Mean log-probability of a target, by "scenario/type"."""
        return self._probes.cells(scores_QC[:, self._probes.channels.index(f"target_{self.span_reduction}")])


def _ranks(trainer: Trainer, pl_module: LightningModule) -> tuple[int, int, Callable[[Tensor], Tensor]]:
    """This rank, how many there are, and how they put their scores together."""
    return trainer.global_rank, trainer.world_size, partial(_gather, pl_module)


def _gather(pl_module: LightningModule, scores_QC: Tensor) -> Tensor:
    """The scores of every rank, [W, Q, C], on every rank."""
    gathered = cast(Tensor, pl_module.all_gather(scores_QC.to(pl_module.device)))
    return gathered.reshape(-1, *scores_QC.shape)  # a single rank gets its own back without the first dimension
