"""Measures, while a model trains, how well it knows each fact (arXiv 2406.11813, sections 3 and 4).

Probes are scored between two updates of a fit (callbacks/probed_fit.py), or once on a checkpoint. This file knows when
to measure, not how (callbacks/probe_scores.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.probe_scores import ProbeScores, gathered
from callbacks.probed_fit import ProbedFit
from callbacks.run_folders import atomic_write
from lm.forests.forest import Forest
from text.errors import UserError
from text.json_lines import json_line


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
        self.generate_check = generate_check
        self._scores = ProbeScores(
            span_reduction,
            token_budget=max_batch_tokens,
            contexts=contexts,
            swapped=swapped_targets,
            max_context=max_context,
            passages=score_passages,
        )
        self._fit: ProbedFit | None = None

    # --- fit ------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the trace and measure where training starts: t = 0, or the step of a checkpoint."""
        self._scores.ask(trainer, pl_module)
        self._fit = ProbedFit(trainer, self._scores, self.dense_window, self.every, self.log_points_per_decade)
        self._fit.measure(trainer, pl_module, logged=self._fit.measured_before)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Measure after the last micro-batch of an optimizer step."""
        if self._fit is not None:
            self._fit.measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final model, wherever the run ended."""
        if self._fit is not None:
            self._fit.measure(trainer, pl_module, final=True)
        scalars = self._scores.check(trainer, pl_module) if self.generate_check else {}
        for logger in trainer.loggers if scalars else []:
            logger.log_metrics(scalars, step=trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report: files in the run folder, figures in TensorBoard, scalars among the run's final metrics."""
        if self._fit is not None:
            self._fit.report(trainer)

    # --- validate and predict -------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Under `validate`: one pass over the probes of a checkpoint."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        self._scores.ask(trainer, pl_module)
        means = self._scores.means(self._scores.score(trainer, pl_module))
        trainer.callback_metrics.update({f"probe/{cell}/logprob": torch.tensor(mean) for cell, mean in means.items()})
        if trainer.is_global_zero:
            width = max(map(len, means))
            lines = [f"  {cell:<{width}}  {mean:9.4f}" for cell, mean in means.items()]
            print("\n".join(["Mean log-probability of a target (nats per token), by scenario and type:", *lines]))
        if self.generate_check:
            self._scores.check(trainer, pl_module)

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
        scores_QC = probes.merge(gathered(pl_module, torch.from_numpy(self._scores_QC)))
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
