"""The loss of an optimizer step: one mean or several, exact however the step is cut into micro-batches and ranks.

A method returns ``global_mean(losses)`` from its training step, or a sum of such means whose denominators `step_total`
knows. This file knows losses, ranks and the trainer's counts; it knows no model. The arithmetic is in
lm/steps/step_mean.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lm.protocols import ForeseesSteps
from lm.steps.lightning_private import batches_done, validates_a_fit
from lm.steps.nonfinite import NotFinite
from lm.steps.step_mean import StepMean
from modules.base.exact_logs import ExactLogs
from text.errors import UserError


class ExactLosses(ExactLogs):
    """A module whose training steps are of the whole global batch.

    Logged per step: ``train/loss``, ``train/grad_norm`` (before clipping), ``train/tokens`` (computed so far, on all
    ranks) and ``train/tokens_per_s`` (validation left out).
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokens_seen: Tensor | int = 0
        self._first_bad_step = torch.tensor(torch.inf)
        self._step_totals: dict[Callable[[Any], Tensor], Tensor] = {}

    def global_mean(
        self, losses: Tensor, weights: Tensor | None = None, total: Tensor | None = None, factor: float = 1.0
    ) -> Tensor:
        """What `training_step` returns to minimise the mean loss over the whole global batch.

        Several means may be added, if each one's denominator is known beforehand: of tokens and of sequences, say, of
        which a micro-batch may hold many or none. A mean over nothing is 0.

        Args:
            losses: one per token or pair, any shape.
            weights: of the same shape; None counts each loss once.
            total: the sum of the weights over the optimizer step, by `step_total`; None is for the only mean of a step.
            factor: of this mean in the loss; other than 1 beside others, that is with ``total``.
        """
        return self.step_mean.add(losses, weights, total, factor)

    def step_total(self, batch: Any, count: Callable[[Any], Tensor]) -> Tensor:
        """What ``count`` gives for the whole optimizer step, known at its first micro-batch: the sum over all of them.

        For losses with more than one denominator. Every rank has to ask, at every micro-batch.

        Args:
            batch: the present micro-batch.
            count: numbers of a batch, any shape; the same function (a method, say) at every micro-batch.

        Raises:
            UserError: with gradient accumulation, if the loader cannot tell what comes next.
        """
        _, in_epoch = batches_done(self.trainer)
        if in_epoch % self.trainer.accumulate_grad_batches == 0:
            total = count(batch).to(self.device, copy=True)  # reduced in place
            for later in self._rest_of_step():
                total = total + count(later).to(self.device)
            if self.trainer.world_size > 1:
                dist.all_reduce(total)
            self._step_totals[count] = total
        return self._step_totals[count]

    def _rest_of_step(self) -> list[Any]:
        if self.trainer.accumulate_grad_batches == 1:
            return []
        loader = self.trainer.train_dataloader
        if not isinstance(loader, ForeseesSteps):
            raise UserError(
                f"this loss needs to know the whole optimizer step, and {type(loader).__name__} gives one micro-batch "
                "after the other: use a datamodule with datamodules.loading.ResumableLoader, or accumulate 1 batch"
            )
        return loader.rest_of_step()

    def count_tokens(self, tokens: int) -> None:
        """Add what a training step computes to ``train/tokens``."""
        if self.training and torch.is_grad_enabled():
            self.step_mean.tokens += tokens

    # ------------------------------------------------------------------------------------------ the trainer's calls

    def on_fit_start(self) -> None:
        """Start counting."""
        self.step_mean = StepMean(self.trainer.accumulate_grad_batches, self.trainer.world_size)
        self._first_bad_step = torch.tensor(torch.inf, device=self.device)

    def on_train_start(self) -> None:
        """Start the clock."""
        self._clock, self._tokens_at_clock = time.perf_counter(), self._tokens_seen

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let go of the last step's gradients: Lightning holds them through the forward, when memory peaks."""
        if self.step_mean.is_empty:
            self.step_mean.micro_batches = self.trainer.accumulate_grad_batches  # a loader may have chosen it
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad()
        self.step_mean.begin()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradients those of the global loss, before they are clipped; log the step."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        loss, tokens = self.step_mean.finish(gradients, self.device)
        self._tokens_seen = self._tokens_seen + tokens
        bad = torch.where(torch.isfinite(loss), torch.inf, self.global_step)
        self._first_bad_step = torch.minimum(self._first_bad_step, bad)
        if (due := self.step_is_logged) or self.device.type == "cpu":  # elsewhere each look would stall the device
            self._refuse_nonfinite()
        if due:
            self._log_step(loss, gradients)

    def _log_step(self, loss: Tensor, gradients: list[Tensor]) -> None:
        norm = get_total_norm(gradients)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/grad_norm", norm.full_tensor() if isinstance(norm, DTensor) else norm)
        self.log_step()
        self.log("train/tokens", float(self._tokens_seen))
        now = time.perf_counter()
        self.log("train/tokens_per_s", float(self._tokens_seen - self._tokens_at_clock) / (now - self._clock))
        self._clock, self._tokens_at_clock = now, self._tokens_seen

    def _refuse_nonfinite(self) -> None:
        if (step := float(self._first_bad_step)) != torch.inf:
            raise NotFinite(
                f"the training loss of step {int(step)} is not finite; nothing is saved from there on. Lower the "
                "learning rate, clip gradients (--trainer.gradient_clip_val 1.0), warm up longer, or leave 16 bits"
            )

    def on_validation_start(self) -> None:
        """Stop the clock of the training throughput."""
        self._paused = time.perf_counter()

    def on_validation_end(self) -> None:
        """Let the clock run again."""
        if validates_a_fit(self.trainer):
            self._clock += time.perf_counter() - self._paused
