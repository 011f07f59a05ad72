"""How language models acquire factual knowledge during pretraining (arXiv 2406.11813): plain pretraining, watched.

The method trains as pretraining always does; facts enter the batches and are probed by callbacks. This file knows
neither: only the objective, and how a probe is scored.
"""

from __future__ import annotations

from torch import Tensor

from lm.forests.batches import TokenRows
from lm.forests.forest import Forest
from modules.base.language_module import LanguageModule


class KnowledgeProbe(LanguageModule):
    r"""Next-token prediction on dense rows (arXiv 2406.11813, section 3).

    With rows :math:`x_b` of S tokens, the loss is the mean over all positions of a global batch of B rows,

    .. math:: L = -\frac{1}{B (S-1)} \sum_{b=1}^{B} \sum_{s=1}^{S-1} \log p_\theta(x_{b,s+1} \mid x_{b,\le s}).

    Injected facts count like any other token. A probe is scored by the log-probability of its target tokens given its
    context, :math:`\log p_\theta(y_i \mid x, y_{<i})`, teacher-forced.
    """

    def training_step(self, batch: TokenRows, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, whatever its split into micro-batches and ranks."""
        return self.global_mean(-self.row_logprobs(batch))

    def validation_step(self, batch: TokenRows, batch_idx: int) -> None:
        """``val/loss``: the same mean over held-out text, nats per token."""
        self.log_for("val", "loss", -self.row_logprobs(batch))

    def predict_step(self, batch: Forest, batch_idx: int) -> Tensor:
        """Log-probs of all scored tokens of a forest of probes, nats, shape [N]."""
        return self.forest_logprobs(batch)
