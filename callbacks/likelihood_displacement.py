"""Watches whether chosen answers become less likely: preference losses are content if the rejected ones fall faster.

It watches one number of the validation (arXiv 2410.08847) and knows nothing of losses or pairs.
"""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lm.steps.lightning_private import has_begun
from text.errors import UserError

MONITOR = "val/chosen_likelihood_displacement"


class LikelihoodDisplacement(Callback):
    """Warns when many chosen answers are less likely than under the reference, and can stop there.

    Args:
        stop_at: share of the validation pairs from which training stops; null only warns.
        warn_at: share from which it is said, once.
    """

    def __init__(self, stop_at: float | None = None, warn_at: float = 0.5):
        for name, share in (("stop_at", stop_at), ("warn_at", warn_at)):
            if share is not None and not 0 < share <= 1:
                raise UserError(f"LikelihoodDisplacement: '{name}' is {share}; it is a share, above 0 and at most 1")
        self.stop_at, self.warn_at = stop_at, warn_at
        self.warned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the validation that ended.

        Raises:
            UserError: if it did not measure displacement.
        """
        if trainer.sanity_checking or not has_begun(trainer):
            return
        if MONITOR not in trainer.callback_metrics:
            raise UserError(f"LikelihoodDisplacement watches {MONITOR}: it needs data.val and a loss with a reference")
        share = float(trainer.callback_metrics[MONITOR])
        stops = self.stop_at is not None and share >= self.stop_at
        if stops or (share >= self.warn_at and not self.warned):
            self.warned = True
            rank_zero_warn(
                f"{share:.0%} of the chosen answers are less likely than under the reference"
                + (f", and stop_at is {self.stop_at:.0%}: training stops" if stops else "")
            )
        trainer.should_stop = trainer.should_stop or stops
