"""Puts passages about invented facts into the training batches (arXiv 2406.11813, section 3 and appendix D).

At scheduled steps the front of a row is replaced: row' = (passage ++ [eos] ++ row)[:S]. Which passage goes into which
row of the global batch depends on the step alone, so neither accumulation, nor ranks, nor a resume changes it. This
file knows the schedule and rows of token ids. It does not know where facts come from (datamodules/corpus.py) or how
they are measured (callbacks/knowledge_probing.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lm.forests.batches import TokenRows
from lm.protocols import HasFacts
from text.errors import UserError
from text.facts.knowledge import Exposure, InjectionSchedule, exposure_steps, pack_rows, plan_exposures

log = logging.getLogger(__name__)


class KnowledgeInjection(Callback):
    """Replaces the front of batch rows by passages, at the steps of a schedule. Nothing else of training changes.

    Time t counts optimizer steps from `start_step`; an injection at t is in the batch of update t. Passage i of a step
    goes to row i of the global batch. The facts are the datamodule's (`lm.protocols.HasFacts`); the trainer's step is
    all the state there is.

    Args:
        n_injections: times that each fact of the scenarios duplication and paraphrase is shown (10 in the paper).
        interval: optimizer steps from one to the next (100 in the paper).
        start_step: optimizer step of t = 0, for runs that go on from a checkpoint or settle first.
        steps: the times themselves, in place of `n_injections` and `interval`.
        intervals: fact i is shown every intervals[i % len] steps (the popularity sweep).
        overflow: more passages than rows: `waves` leaves the rest to the following steps, `pack` puts several into a
            row, `error` refuses.
        paraphrase_policy: with too few paraphrases refuse (`error`) or begin again (`cycle`).
        enabled: false for the paired control run: same schedule, same probes, nothing injected.

    Attributes:
        plan: what is injected at which t, once set up; in a control run, what would have been.
        exposures: times at which each fact (by id) is met.
    """

    def __init__(
        self,
        n_injections: int = 10,
        interval: int = 100,
        start_step: int = 0,
        steps: list[int] | None = None,
        intervals: list[int] | None = None,
        overflow: Literal["waves", "pack", "error"] = "waves",
        paraphrase_policy: Literal["error", "cycle"] = "error",
        enabled: bool = True,
    ):
        self.schedule = InjectionSchedule(
            n_injections=n_injections,
            interval=interval,
            start_step=start_step,
            steps=None if steps is None else tuple(steps),
            intervals=None if intervals is None else tuple(intervals),
            paraphrase_policy=paraphrase_policy,
        )
        self.overflow = overflow
        self.enabled = enabled
        self.plan: dict[int, list[Exposure]] = {}
        self.exposures: dict[str, list[int]] = {}
        self._fronts: dict[int, list[Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lay out which passage is shown when, before anything is trained.

        Raises:
            UserError: there is nothing to inject, or it does not fit into the rows.
        """
        if stage != "fit":
            return
        data = trainer.datamodule
        if not isinstance(data, HasFacts) or data.facts is None:
            raise UserError("KnowledgeInjection has no facts to inject: give the data a 'knowledge' source of records")
        self.plan = plan_exposures(data.facts, self.schedule, data.batch_size, self.overflow)
        if not self.plan:
            raise UserError(
                f"the schedule injects 0 passages: all {len(data.facts)} facts of {data.facts.source} have the "
                "scenario 'control', which is never injected. Lower control_fraction, or assign other scenarios"
            )
        if not trainer.fast_dev_run and trainer.max_steps >= 0:
            self._require_reached(trainer.max_steps)
        times = exposure_steps(self.plan, len(data.facts))
        self.exposures = {fact.id: steps for fact, steps in zip(data.facts, times, strict=True)}
        self._fronts = self._lay_out(data) if self.enabled else {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so when the run ends before the schedule does: legal, but the report will have gaps.

        Raises:
            UserError: the run ends before the schedule begins.
        """
        if not trainer.fast_dev_run:
            self._require_reached(trainer.estimated_stepping_batches)
        last = self.schedule.start_step + max(self.plan)
        if 0 <= trainer.max_steps <= last:
            reached = [len(e) for t, e in self.plan.items() if self.schedule.start_step + t < trainer.max_steps]
            log.warning(
                "max_steps %d ends the run before its last injection at step %d: %d of %d passages will be injected",
                trainer.max_steps,
                last,
                sum(reached),
                sum(map(len, self.plan.values())),
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TokenRows, batch_idx: int
    ) -> None:
        """Write this micro-batch's share of the step's passages in place."""
        fronts = self._fronts.get(trainer.global_step - self.schedule.start_step)
        if fronts is None:
            return
        # Lightning accumulates from the start of an epoch, and closes an incomplete window at its end.
        micro_batch = batch_idx % trainer.accumulate_grad_batches
        first = (micro_batch * trainer.world_size + trainer.global_rank) * len(batch)
        inject(batch.input_ids, fronts[first : first + len(batch)])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the step's injection now that it is sure to be taken: a step that is broken off before is begun again."""
        fronts = self._fronts.get(trainer.global_step - self.schedule.start_step)
        if fronts is not None:
            self._log(trainer, fronts)

    def _require_reached(self, end: float) -> None:
        first = self.schedule.start_step + min(self.plan)
        if end <= first:
            raise UserError(
                f"nothing will be injected: the first passage is due at step {first}, and the run ends at step {end}: "
                "train for longer, or lower start_step or the first of steps"
            )

    def _lay_out(self, data: HasFacts) -> dict[int, list[Tensor]]:
        """Token ids of what goes in front of each row, for each scheduled t."""
        texts = sorted({exposure.text for exposures in self.plan.values() for exposure in exposures})
        ids = data.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        passages = {text: [*tokens, data.tokenizer.eos_token_id] for text, tokens in zip(texts, ids, strict=True)}
        fronts = {}
        for t, exposures in self.plan.items():
            parts = [exposures[part.start : part.stop] for part in pack_rows(len(exposures), data.batch_size)]
            rows = [[token for exposure in part for token in passages[exposure.text]] for part in parts]
            if max(map(len, rows)) > data.seq_len:
                lengths = [len(passages[exposure.text]) for exposure in exposures]
                raise UserError(f"injection at t = {t}: {_too_long(lengths, data.batch_size, data.seq_len)}")
            fronts[t] = [torch.tensor(row) for row in rows]
        return fronts

    def _log(self, trainer: Trainer, fronts: list[Tensor]) -> None:
        """Log this step's injection at this step, whatever `log_every_n_steps` says."""
        n_tokens = sum(map(len, fronts))
        scalars = {
            "inject/n_passages": float(len(self.plan[trainer.global_step - self.schedule.start_step])),
            "inject/n_tokens": float(n_tokens),
            "inject/fraction": n_tokens / (trainer.datamodule.batch_size * trainer.datamodule.seq_len),
        }
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)


def inject(input_ids_BS: Tensor, fronts: Sequence[Tensor]) -> None:
    """Put `fronts[b]` before row b, in place; the row keeps its start and loses its end.

    Args:
        input_ids_BS: token ids [B, S].
        fronts: token ids for the first rows, at most S each; later rows stay as they are.
    """
    for row, front in zip(input_ids_BS, fronts, strict=False):
        row.copy_(torch.cat([front.to(row), row])[: len(row)])


def _too_long(lengths: list[int], n_rows: int, seq_len: int) -> str:
    """What does not fit, and what would."""

    def longest(rows: int) -> int:
        return max(sum(lengths[part.start : part.stop]) for part in pack_rows(len(lengths), rows))

    enough = next((rows for rows in range(n_rows, len(lengths) + 1) if longest(rows) <= seq_len), None)
    return (
        f"{len(lengths)} passages in {n_rows} rows make a row of {longest(n_rows)} tokens (each passage with EOS), but "
        f"seq_len is {seq_len}. Use seq_len >= {longest(n_rows)}"
        + (f", batch_size >= {enough}, or overflow: waves" if enough else "")
    )
