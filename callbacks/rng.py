"""Random number generators travel with the checkpoint, so that dropout after a resume is what it would have been.

On one rank the states are saved and restored. A checkpoint holds rank 0's state only, so on several ranks every
optimizer step is seeded from (seed, step, rank) instead. This file does not know what draws the numbers.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lm.steps.lightning_private import step_is_half_done


class RNGState(Callback):
    """Makes random numbers of a resumed run those of an uninterrupted one."""

    def __init__(self) -> None:
        self.restored: dict[str, Any] | None = None
        self.before_step: dict[str, Any] | None = None
        self.seeded_step = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restores once after a resume; on several ranks seeds every optimizer step."""
        if trainer.world_size > 1:
            if self.seeded_step != trainer.global_step:
                seed_generators(int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.global_step, trainer.global_rank)
                self.seeded_step = trainer.global_step
            return
        if self.restored is not None:  # only now: set-up code and validation may have drawn numbers
            set_rng_state(self.restored)
            self.restored = None
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.before_step = rng_state()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Saves the states from which the next step of a resumed run starts."""
        half = step_is_half_done(trainer)
        checkpoint["rng"] = as_plain(self.before_step if half and self.before_step is not None else rng_state())

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the states until training starts."""
        self.restored = checkpoint.get("rng")


def rng_state() -> dict[str, Any]:
    """States of torch (all devices), numpy and Python."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),  # noqa: NPY002  the global one is meant, which libraries draw from
        "python": random.getstate(),
    }


def as_plain(state: dict[str, Any]) -> dict[str, Any]:
    """The same as tensors and lists: checkpoints are loaded with ``weights_only``."""
    name, keys, *rest = state["numpy"]
    version, internal, gauss = state["python"]
    return state | {"numpy": [name, keys.tolist(), *rest], "python": [version, list(internal), gauss]}


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what `rng_state` gave, plain or not."""
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def seed_generators(seed: int, step: int, rank: int) -> None:
    """Seeds every generator from three integers; near triples give unrelated streams."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002
    random.seed(mixed)
