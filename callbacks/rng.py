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


class RNGState(Callback):
    """Makes random numbers of a resumed run those of an uninterrupted one."""

    def __init__(self) -> None:
        self.restored: dict[str, Any] = {}
        self.seeded_step = -1

    def state_dict(self) -> dict[str, Any]:
        """States as tensors and lists: checkpoints are loaded with ``weights_only``."""
        return rng_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until training starts: set-up code in between may draw numbers."""
        self.restored = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restores once after a resume; on several ranks seeds every optimizer step."""
        if trainer.world_size > 1 and self.seeded_step != trainer.global_step:
            seed_everything_quietly(int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.global_step, trainer.global_rank)
            self.seeded_step = trainer.global_step
        elif trainer.world_size == 1 and self.restored:
            set_rng_state(self.restored)
        self.restored = {}


def rng_state() -> dict[str, Any]:
    """States of torch (all devices), numpy and Python."""
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002  the global one is meant
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [keys.tolist(), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what `rng_state` gave."""
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def seed_everything_quietly(seed: int, step: int, rank: int) -> None:
    """Seeds every generator from three integers; near triples give unrelated streams."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002
    random.seed(mixed)
