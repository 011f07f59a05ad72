"""Learning-rate schedules: a factor on the base rate as a pure function of the number of the update.

Knows nothing of models or data. Everything is kept out of the scheduler's state: on resume the configuration decides,
not the checkpoint.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from text.errors import UserError

Shape = Literal["constant", "linear", "cosine"]

IDLE = 0.05
"""A larger share of a run's steps at a rate of 0 is told."""


def warmup_factor(
    update: int,
    warmup_steps: int,
    total_steps: int | None,
    shape: Shape,
    final_lr_fraction: float,
) -> float:
    """Factor on the base learning rate for one update.

    Rises linearly over the first ``warmup_steps`` updates (update 0 already moves: factor ``1 / warmup_steps``), then
    falls from 1 to ``final_lr_fraction`` at ``total_steps`` along ``shape`` and stays there.

    ``update`` counts from 0; the other arguments are those of `Warmup`.
    """
    if update < warmup_steps:
        return (update + 1) / warmup_steps
    if shape == "constant" or total_steps is None:
        return 1.0
    progress = min(1.0, (update - warmup_steps) / max(1, total_steps - warmup_steps))
    remaining = 1.0 - progress if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return final_lr_fraction + (1.0 - final_lr_fraction) * remaining


@dataclass
class _Plan:
    """The numbers of a schedule; ``total_steps`` and ``warmup_steps`` are None until the length of the run is known."""

    shape: Shape
    final_lr_fraction: float
    start_step: int
    total_steps: int | None
    warmup_steps: int | None
    warmup_ratio: float | None

    def factor(self, step: int) -> float:
        """Factor on the base rate at an update of this run; 0 while the length of the warm-up is unknown."""
        if self.warmup_steps is None:
            return 0.0
        update = self.start_step + step
        return warmup_factor(update, self.warmup_steps, self.total_steps, self.shape, self.final_lr_fraction)


class Warmup(LambdaLR):
    """Linear warm-up, then constant, linear or cosine decay; stepped once per optimizer step.

    Args:
        optimizer: the optimizer whose rate is scheduled.
        warmup_steps: updates over which the rate rises to its base value; null is 0, or what `warmup_ratio` says.
        total_steps: update at which the decay is complete, counted from update 0 of the whole training, warm-up
            included. Null is the end of this run, as the trainer knows it from ``max_steps``, ``max_epochs``, the data
            and gradient accumulation.
        shape: how the rate falls after warm-up.
        final_lr_fraction: share of the base rate that is left at ``total_steps`` and after it.
        start_step: number of the first update, when a run goes on from the weights of an earlier training: the rate
            starts where that training left it.
        warmup_ratio: in place of `warmup_steps`: the share of ``total_steps`` over which the rate rises, rounded up.

    Raises:
        UserError: if the numbers do not describe a schedule.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int | None = None,
        total_steps: int | None = None,
        shape: Shape = "constant",
        final_lr_fraction: float = 0.1,
        start_step: int = 0,
        warmup_ratio: float | None = None,
    ):
        for name, value in {"warmup_steps": warmup_steps or 0, "start_step": start_step}.items():
            if not isinstance(value, int) or value < 0:
                raise UserError(f"lr_scheduler: '{name}' is {value!r}; it must be a number of steps, 0 or more")
        if shape not in ("constant", "linear", "cosine"):
            raise UserError(f"lr_scheduler: 'shape' is {shape!r}; it must be constant, linear or cosine")
        if warmup_ratio is not None and (warmup_steps is not None or not 0.0 <= warmup_ratio < 1.0):
            given = "" if warmup_steps is None else f", beside 'warmup_steps' {warmup_steps}"
            raise UserError(
                f"lr_scheduler: 'warmup_ratio' is {warmup_ratio!r}{given}; it must lie in [0, 1), or give warmup_steps"
            )
        if total_steps is not None and (not isinstance(total_steps, int) or total_steps <= (warmup_steps or 0)):
            raise UserError(
                f"lr_scheduler: 'total_steps' is {total_steps!r}; it must be a number greater than 'warmup_steps' "
                f"({warmup_steps or 0}), or null for the length of the run"
            )
        if final_lr_fraction is None or not 0.0 <= final_lr_fraction <= 1.0:
            raise UserError(f"lr_scheduler: 'final_lr_fraction' is {final_lr_fraction!r}; it must lie in [0, 1]")
        rise = None if warmup_ratio is not None else warmup_steps or 0
        self.plan = plan = _Plan(shape, final_lr_fraction, start_step, total_steps, rise, warmup_ratio)
        if total_steps is not None and warmup_ratio is not None:
            plan.warmup_steps = math.ceil(warmup_ratio * total_steps)
        super().__init__(optimizer, lambda step: plan.factor(step))  # a function: other callables enter the state

    def fit_to(self, run_steps: float) -> list[str]:
        """Take what was left open from the length of the run, and set the rate of the first update.

        Args:
            run_steps: optimizer steps of the run from its beginning; infinite if it has no end.

        Returns: what a user should be warned of: numbers that this run does not agree with.

        Raises:
            UserError: if the schedule depends on the end of a run that has none.
        """
        plan = self.plan
        needs_end = plan.total_steps is None and (plan.shape != "constant" or plan.warmup_ratio is not None)
        if needs_end and not math.isfinite(run_steps):
            raise UserError(
                "lr_scheduler: 'total_steps' is null, but this run has no end: set trainer.max_steps or "
                "trainer.max_epochs, or give total_steps"
            )
        told = [] if plan.total_steps is None or not math.isfinite(run_steps) else self._disagreements(int(run_steps))
        if needs_end:
            plan.total_steps = plan.start_step + int(run_steps)
        if plan.warmup_steps is None:
            plan.warmup_steps = math.ceil((plan.warmup_ratio or 0.0) * (plan.total_steps or 0))
        if math.isfinite(run_steps) and 0 < run_steps <= plan.warmup_steps - plan.start_step:
            told.append(
                f"lr_scheduler: the rate rises over {plan.warmup_steps:,} steps, and this run ends at "
                f"{plan.start_step + int(run_steps):,}: it never reaches the base rate"
            )
        for group, base, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        return told

    def _disagreements(self, run_steps: int) -> list[str]:
        """How a number of steps that was given differs from that of the run."""
        plan, end = self.plan, self.plan.start_step + run_steps
        assert plan.total_steps is not None
        if plan.shape == "constant":
            return []
        if plan.total_steps > end and not plan.start_step:  # a piece of a longer training ends where it ends
            left = plan.factor(run_steps) if plan.warmup_steps is not None else 1.0
            return [
                f"lr_scheduler: 'total_steps' is {plan.total_steps:,}, but this run ends at {end:,}, where the rate is "
                f"still {left:.0%} of its base: null takes the length of the run"
            ]
        idle = end - max(plan.total_steps, plan.start_step)
        if plan.final_lr_fraction == 0.0 and idle > IDLE * run_steps:
            return [
                f"lr_scheduler: 'total_steps' is {plan.total_steps:,} and this run has {end:,}: the rate is 0 in "
                f"{idle / run_steps:.0%} of its steps, which teach nothing: null takes the length of the run"
            ]
        return []

    def state_dict(self) -> dict[str, Any]:
        """The position; what the schedule is, the configuration decides."""
        return {key: value for key, value in super().state_dict().items() if key != "plan"}


class EpochDecay(LambdaLR):
    """The rate falls by a factor after each epoch, as torch's StepLR does if it is stepped once an epoch.

    Args:
        optimizer: the optimizer whose rate is scheduled.
        gamma: the factor.

    Attributes:
        interval: when Lightning steps it; other schedules are stepped once per optimizer step.

    Raises:
        UserError: for a factor that is not above 0, or above 1.
    """

    interval = "epoch"

    def __init__(self, optimizer: Optimizer, gamma: float):
        if not 0.0 < gamma <= 1.0:
            raise UserError(f"lr_scheduler: 'gamma' is {gamma!r}; it must lie in (0, 1]")
        super().__init__(optimizer, lambda epoch: gamma**epoch)  # a function: other callables enter the state


class Configured(NamedTuple):
    """What the configuration says of an optimizer and its schedule before the first update.

    Args:
        groups: the settings of each parameter group, as the schedule has them begin.
        schedule: the state of the schedule; None without one.
    """

    groups: list[dict[str, Any]]
    schedule: dict[str, Any] | None

    @classmethod
    def of(cls, optimizer: Optimizer, scheduler: LRScheduler | None) -> Configured:
        """Of both as they were built; to be asked before a checkpoint is restored."""
        groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        return cls(*copy.deepcopy((groups, None if scheduler is None else scheduler.state_dict())))


def keep_configured(optimizer: Optimizer, scheduler: LRScheduler | None, configured: Configured) -> None:
    """After a resume, put the configured rates, betas and weight decay back in place of those of the checkpoint.

    torch restores them with the optimizer's moments, so that a changed ``lr`` would silently have no effect. The
    schedule takes its steps anew from the beginning: many compute each rate from the one before. Nothing changes, to
    the last bit, if the configuration is the one that the checkpoint was made with, or if nothing was restored.

    Args:
        optimizer: with its state restored.
        scheduler: with its position restored, if there is one.
        configured: what both began with.
    """
    groups, schedule = copy.deepcopy(configured)
    for group, wanted in zip(optimizer.param_groups, groups, strict=True):
        group.update(wanted)
    if scheduler is None or schedule is None:
        return
    steps = _position(scheduler.state_dict()) - _position(schedule)
    scheduler.load_state_dict(schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses the optimizer's steps, which were taken before the checkpoint
        try:
            for _ in range(steps):
                scheduler.step()
        except ValueError as error:  # a schedule that ends, and ends earlier than the checkpoint
            raise UserError(f"model.lr_scheduler, at the {steps:,} steps of the checkpoint: {error}") from error


def _position(schedule: dict[str, Any]) -> int:
    """How often a schedule was stepped; a chain of several counts in its parts alone."""
    return schedule["last_epoch"] if "last_epoch" in schedule else _position(schedule["_schedulers"][0])
