"""Logs that are means over a whole optimizer step or epoch, whatever the cut into batches and ranks.

Methods log what they compute of each batch; it appears once, for all of them. Lightning's own epoch means would not do:
over ranks it averages the number of tokens as an integer, and drops the half. Knows names and numbers, no model.
"""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule
from torch import Tensor

from lm.files.hyperparameters import PlainHyperparameters
from lm.steps.step_mean import Means

Split = Literal["train", "val", "test"]


class ExactLogs(PlainHyperparameters, LightningModule):
    """A module whose logged means are exact."""

    def __init__(self) -> None:
        super().__init__()
        self._step_logs, self._epoch_logs = Means(), Means()

    def log_for(self, split: Split, name: str, values: Tensor, weights: Tensor | None = None) -> None:
        """Log a mean over a training step, beside its loss, or over a validation or test epoch.

        Args:
            split: ``train``, or what is evaluated.
            name: after ``<split>/``; every rank logs the same names in the same order.
            values: any shape.
            weights: of the same shape; None counts each value once.
        """
        if split != "train":
            self._epoch_logs.add(name, values, weights)
        elif self.step_is_logged:
            self._step_logs.add(name, values, weights)

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged of a step or an epoch, given the means of what was logged of its batches."""
        return means

    @property
    def step_is_logged(self) -> bool:
        """Whether the optimizer step that is on its way will be logged."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0 logs nothing
        return every > 0 and (self.global_step + 1) % every == 0

    def log_step(self) -> None:
        """Log the means of the optimizer step that ends."""
        means = self.complete_means(self._step_logs.finish(self.trainer.world_size))
        self.log_dict({f"train/{name}": mean for name, mean in means.items()})

    def log_epoch(self, split: Split) -> dict[str, Tensor]:
        """Log and return the means of the epoch that ends, by name."""
        means = self.complete_means(self._epoch_logs.finish(self.trainer.world_size))
        for name, mean in means.items():
            self.log(f"{split}/{name}", mean, prog_bar=name == "loss", sync_dist=True)
        return means

    def on_validation_epoch_start(self) -> None:
        """Begin anew: an epoch may have been broken off."""
        self._epoch_logs = Means()

    def on_validation_epoch_end(self) -> None:
        """Log the means of the epoch."""
        self.log_epoch("val")

    def on_test_epoch_start(self) -> None:
        """Begin anew."""
        self._epoch_logs = Means()

    def on_test_epoch_end(self) -> None:
        """Log the means of the epoch."""
        self.log_epoch("test")
