"""Progress where there is no terminal: a few plain lines in a log file instead of a bar that floods it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lm.steps.lightning_private import ends_a_step


class ProgressLines(ProgressBar):
    """Prints about ``lines`` lines per fit: step, and whatever the method shows in its progress bar.

    Args:
        lines: how many lines a whole fit prints.
    """

    def __init__(self, lines: int = 20):
        super().__init__()
        self.lines = lines
        self.enabled = True
        self.printed = -1

    def disable(self) -> None:
        """Called by Lightning on every rank but the first."""
        self.enabled = False

    def enable(self) -> None:
        """The opposite of `disable`."""
        self.enabled = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A line every 1/lines of the run, and one at its last step."""
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        every = max(1, round(total / self.lines)) if total != float("inf") else 100
        due = step % every == 0 or step == total
        if self.enabled and due and step != self.printed and ends_a_step(trainer):
            self.printed = step
            self.print_line(trainer, pl_module, f"step {step}/{total:g}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A line per validation."""
        if self.enabled and not trainer.sanity_checking:
            self.print_line(trainer, pl_module, f"validated at step {trainer.global_step}")

    def print_line(self, trainer: Trainer, pl_module: LightningModule, head: str) -> None:
        """``head`` and the values of the progress bar."""
        values = self.get_metrics(trainer, pl_module)
        values.pop("v_num", None)
        shown = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
        ]
        print("  ".join([head, *shown]), flush=True)
