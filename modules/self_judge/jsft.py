"""JSFT, judge-augmented supervised fine-tuning (arXiv 2402.11253, section 3.1): a model learns to answer and to judge.

This file knows which tokens are answers and which are judgements. It does not know how a judge is asked
(text/judging/pair_template.py), how records became tokens (datamodules/judged_answers.py), nor how good a judge is
(modules/base/judges_pairs.py).

Legend: K scored tokens of all answers and judgements.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lm.backbones.backbone import Backbone
from lm.forests.batches import JudgmentBatch
from lm.judging.judge_by_name import note_template, warn_of_template
from lm.protocols import ComparesPairs
from lm.steps.lightning_private import trainer_of
from modules.base.judges_pairs import JudgesPairs
from modules.sft import SFT
from text.errors import UserError


class JSFT(JudgesPairs, SFT):
    r"""Next-token prediction of answers, and of the label (and reasons) of judgements.

    With the tokens :math:`t \in S` of answers and :math:`t \in J` of judgements of a global batch, the loss is

    .. math:: L = -\frac{1}{|S| + |J|} \sum_{t \in S \cup J} \log p_\theta(t) \quad\text{(official), or}\quad
              L = -\frac{1 - w}{|S|} \sum_{t \in S} \log p_\theta(t) - \frac{w}{|J|} \sum_{t \in J} \log p_\theta(t).

    A judgement is one token beside hundreds of an answer, so that the first form hardly teaches to judge. Both means
    are logged: ``loss_sft`` and ``loss_judge``, nats per token. What is logged of the judge: see JudgesPairs.

    Args:
        backbone: the model to train.
        judge_weight: w; null is the first form.
        method: see JudgesPairs and SFT.
    """

    def __init__(self, backbone: Backbone, judge_weight: float | None = None, **method: Any):
        super().__init__(backbone, **method)
        if judge_weight is not None and not 0 <= judge_weight <= 1:
            raise UserError(f"model: 'judge_weight' is {judge_weight}; it is from 0 to 1, or null")
        self.judge_weight = judge_weight

    def prepare_model(self, model: nn.Module) -> None:
        """Note in which words it learns to judge, or tell that it learnt in others."""
        super().prepare_model(model)
        data = getattr(trainer_of(self), "datamodule", None)
        if isinstance(data, ComparesPairs):
            warn_of_template(model, data.template)
            note_template(model, data.template)

    def training_step(self, batch: JudgmentBatch, batch_idx: int) -> Tensor:  # type: ignore[override]
        """The loss above; exact over the global batch, whatever its split into micro-batches and ranks."""
        losses_K, judged_K = self._losses(batch, "train")
        if self.judge_weight is None:
            return self.global_mean(losses_K)
        answers, judgements = self.step_total(batch, self._count)
        return self.global_mean(losses_K, 1 - judged_K, total=answers, factor=1 - self.judge_weight) + self.global_mean(
            losses_K, judged_K, total=judgements, factor=self.judge_weight
        )

    def validation_step(self, batch: JudgmentBatch, batch_idx: int) -> None:  # type: ignore[override]
        """``val/loss``, ``val/loss_sft`` and ``val/loss_judge``, nats per token."""
        self.log_for("val", "loss", self._losses(batch, "val")[0])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: what is tested is the judge (JudgesPairs)."""

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss that is trained, of two means; ``perplexity`` of answers."""
        if "loss" not in means:  # of a training step
            return means
        if self.judge_weight is not None:
            means["loss"] = (1 - self.judge_weight) * means["loss_sft"] + self.judge_weight * means["loss_judge"]
        return means | {"perplexity": means["loss_sft"].exp()}

    def _losses(self, batch: JudgmentBatch, split: Literal["train", "val"]) -> tuple[Tensor, Tensor]:
        """Of all tokens [K], and which of them are of a judgement [K], 0 or 1."""
        losses_K = -self.answer_logprobs(batch.forest)
        judged_K = (batch.verdict | batch.feedback).to(losses_K.dtype)
        self.log_for(split, "loss_sft", losses_K, 1 - judged_K)
        self.log_for(split, "loss_judge", losses_K, judged_K)
        return losses_K, judged_K

    @staticmethod
    def _count(batch: JudgmentBatch) -> Tensor:
        judged = (batch.verdict | batch.feedback).sum()
        return torch.stack([batch.verdict.numel() - judged, judged])
