"""Learning-rate schedules: a factor on the base rate as a pure function of the number of the update.

Knows nothing of models or data. Everything is kept out of the scheduler's state: on resume the configuration decides,
not the checkpoint.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from text.errors import UserError


def warmup_factor(
    update: int,
    warmup_steps: int,
    total_steps: int | None,
    shape: Literal["constant", "linear", "cosine"],
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


class Warmup(LambdaLR):
    """Linear warm-up, then constant, linear or cosine decay; stepped once per optimizer step.

    Args:
        optimizer: the optimizer whose rate is scheduled.
        warmup_steps: updates over which the rate rises to its base value.
        total_steps: update at which the decay is complete, counted from update 0 of the whole training, warm-up
            included. Needed by ``linear`` and ``cosine``.
        shape: how the rate falls after warm-up.
        final_lr_fraction: share of the base rate that is left at ``total_steps`` and after it.
        start_step: number of the first update, when a run goes on from the weights of an earlier training: the rate
            starts where that training left it.

    Raises:
        UserError: if the numbers do not describe a schedule.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        shape: Literal["constant", "linear", "cosine"] = "constant",
        final_lr_fraction: float = 0.1,
        start_step: int = 0,
    ):
        for name, value in {"warmup_steps": warmup_steps, "start_step": start_step}.items():
            if not isinstance(value, int) or value < 0:
                raise UserError(f"lr_scheduler: '{name}' is {value!r}; it must be a number of steps, 0 or more")
        if shape not in ("constant", "linear", "cosine"):
            raise UserError(f"lr_scheduler: 'shape' is {shape!r}; it must be constant, linear or cosine")
        if shape != "constant" and (total_steps is None or total_steps <= warmup_steps):
            raise UserError(
                f"lr_scheduler: a {shape} schedule needs 'total_steps' greater than 'warmup_steps' "
                f"({warmup_steps}); it is {total_steps}"
            )
        if final_lr_fraction is None or not 0.0 <= final_lr_fraction <= 1.0:
            raise UserError(f"lr_scheduler: 'final_lr_fraction' is {final_lr_fraction!r}; it must lie in [0, 1]")

        def factor(step: int) -> float:  # a closure, not attributes: those would enter the state and win on resume
            return warmup_factor(start_step + step, warmup_steps, total_steps, shape, final_lr_fraction)

        super().__init__(optimizer, factor)


def settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What the configuration set for each parameter group; call it before a scheduler touches the rate."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def keep_configured(optimizer: Optimizer, scheduler: LRScheduler | None, configured: list[dict[str, Any]]) -> None:
    """After a resume, put the configured rates, betas and weight decay back in place of those of the checkpoint.

    torch restores them with the optimizer's moments, so that a changed ``lr`` would silently have no effect. Nothing
    changes, to the last bit, if the configuration is the one that the checkpoint was made with.

    Args:
        optimizer: with its state restored.
        scheduler: with its position restored, if there is one.
        configured: of `settings`.
    """
    factors = getattr(scheduler, "lr_lambdas", None)
    for i, (group, wanted) in enumerate(zip(optimizer.param_groups, configured, strict=True)):
        group.update({key: value for key, value in wanted.items() if key != "lr"})
        if scheduler is None:
            group["lr"] = wanted["lr"]
            continue
        before = scheduler.base_lrs[i]
        scheduler.base_lrs[i] = group["initial_lr"] = wanted["lr"]
        if factors is not None:
            group["lr"] = wanted["lr"] * factors[i](scheduler.last_epoch)
        elif before != wanted["lr"]:  # schedules that compute each rate from the last one
            group["lr"] *= wanted["lr"] / before
