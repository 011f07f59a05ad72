"""Reward models: one number for how good an answer is, learnt from pairs (arXiv 2203.02155; arXiv 2405.17977).

This file knows pairs and their rewards. It does not know how text became tokens (datamodules/preference.py), how a
language model gets a scalar head (lm/backbones/reward_backbone.py), nor where it is read (lm/scoring/rewards.py).

Legend: P paths (chosen and rejected of pair i at 2 i and 2 i + 1), B pairs.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.backbones.reward_backbone import RewardBackbone, reward_backbone
from lm.forests.batches import PairBatch, PromptBatch
from lm.judging.rater import Rated, Rater, answer_of
from lm.protocols import PairLayout
from lm.scoring.rewards import forest_rewards
from lm.tokens.templates import end_of_turn
from losses.preference import reward_model_loss
from modules.base.backbone_module import BackboneModule
from modules.base.exact_logs import Split
from text.errors import UserError


class RewardModel(BackboneModule):
    r"""A language model with a scalar head, learning which of two answers is preferred.

    The reward :math:`r(x, y) = w^\top h(x, y)` is read from the final hidden state h of the token that ends an answer.
    With margins :math:`m_i` and weights :math:`w_i` of the pairs, the loss is the mean over the global batch

    .. math:: L = \frac{\sum_i w_i \left[ -\log \sigma(r(x_i, y^w_i) - r(x_i, y^l_i) - m_i)
              + c \, (r(x_i, y^w_i) + r(x_i, y^l_i))^2 \right]}{\sum_i w_i}.

    Where the prompt x has a system message, that is what answers are judged by (arXiv 2405.17977, section 3.3).

    Args:
        backbone: what gets the head: normally the run of the supervised model (TrainedBackbone), whose layers are
            trained on. A reward model keeps its own head.
        center_coef: c, which holds rewards around 0 (arXiv 2312.09244).
        normalize: predict rewards less their mean and divided by their standard deviation, both over the answers of the
            last validation.
        optimizer: see BackboneModule. 9e-6 in arXiv 2405.17977, without weight decay.
        lr_scheduler: see BackboneModule.
        share_prefixes: see LanguageModule.
    """

    pair_layout: PairLayout = "ends"

    def __init__(
        self,
        backbone: Backbone,
        center_coef: float = 0.0,
        normalize: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=9e-6, betas=(0.9, 0.95), weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
    ):
        super().__init__(reward_backbone(backbone), optimizer, lr_scheduler)
        if not isinstance(self.backbone, RewardBackbone):
            raise UserError("model: 'backbone' must be that of a language model; an encoder reads no answers")
        if center_coef < 0:
            raise UserError(f"model: 'center_coef' is {center_coef!r}; it must be 0 or more")
        self.center_coef, self.normalize, self.share_prefixes = center_coef, normalize, share_prefixes
        self.register_buffer("reward_mean", torch.tensor(0.0))
        self.register_buffer("reward_std", torch.tensor(0.0))  # 0: never measured
        self.reward_mean: Tensor
        self.reward_std: Tensor
        self._judges = False  # whether the head is more than random

    @cached_property
    def _end(self) -> int:
        """The token that ends an answer; -1 if there is none."""
        assert self.tokenizer is not None
        return -1 if (end := end_of_turn(self.tokenizer)) is None else end

    # ------------------------------------------------------------------------------------------------ the method

    def rewards(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Rewards of the chosen and of the rejected answers, [B] each.

        Raises:
            UserError: if an answer does not end with the token that ends a turn, at which the model learns to judge.
        """
        forest, host = batch.forest, batch.forest.host
        if bool((host.input_ids[host.sources] != self._end).any()):
            raise UserError("reward models judge an answer at the token that ends it: set data.append_eos to both")
        self.count_tokens(forest.input_ids.numel())
        chosen_B, rejected_B = forest_rewards(self.model, forest, self.share_prefixes).view(-1, 2).unbind(1)
        return chosen_B, rejected_B

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, whatever its split into micro-batches and ranks."""
        return self.global_mean(self.judge_pairs("train", batch), batch.weights)

    def judge_pairs(self, split: Split, batch: PairBatch) -> Tensor:
        """Losses of the pairs, [B]; their rewards are logged."""
        chosen_B, rejected_B = self.rewards(batch)
        margins_B = chosen_B - rejected_B
        logged = {"chosen": chosen_B, "rejected": rejected_B, "margin": margins_B}
        logged["accuracy"] = (margins_B > 0).float()  # a tie is no success
        logged["square"] = (chosen_B**2 + rejected_B**2) / 2
        counted_B = batch.weights > 0
        for name, values_B in logged.items():
            self.log_for(split, f"rewards/{name}", values_B, counted_B)
        return reward_model_loss(chosen_B, rejected_B, batch.margins, self.center_coef)

    # -------------------------------------------------------------------------------------------------- its use

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """``val/loss`` and the rewards of held-out pairs."""
        self._evaluate("val", batch)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """The same as ``test/...``."""
        self._evaluate("test", batch)

    def _evaluate(self, split: Split, batch: PairBatch) -> None:
        self.log_for(split, "loss", self.judge_pairs(split, batch), batch.weights)
        forest = batch.forest
        longer_B, shorter_B = forest.position_ids[forest.sources[forest.path_targets]].view(-1, 2).unbind(1)
        counting_tokens_B = (longer_B > shorter_B).float()  # what that would reach
        self.log_for(split, "length_bias_accuracy", counting_tokens_B, batch.weights > 0)

    def on_validation_epoch_end(self) -> None:
        """Keep mean and standard deviation of all rewards for those who compare them across prompts."""
        means = self.log_epoch("val")
        if not self.trainer.sanity_checking and means["rewards/std"].isfinite():  # else no pair had a weight
            self.reward_mean.copy_(means["rewards/mean"])
            self.reward_std.copy_(means["rewards/std"])

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean and standard deviation over the answers of both sides."""
        square = means.pop("rewards/square")
        means["rewards/mean"] = (means["rewards/chosen"] + means["rewards/rejected"]) / 2
        means["rewards/std"] = (square - means["rewards/mean"] ** 2).clamp(min=0).sqrt()
        return means

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Rated]:
        """The rewards of answers that come with their prompts, as ``response``, ``completion`` or ``output``."""
        texts = [answer_of(record) for record in batch.records]
        rewards = self.rater.rate(batch.records, [[text] for text in texts])
        rated = zip(batch.records, texts, rewards, strict=True)
        return [Rated(record, text, self.scaled(reward)) for record, text, (reward,) in rated]

    @cached_property
    def rater(self) -> Rater:
        """What rates answers, with prompts rendered as the data renders them."""
        return Rater(self.model, self.trainer.datamodule.renderer)  # type: ignore[attr-defined]

    def scaled(self, reward: float | None) -> float | None:
        """A reward as it is given away.

        Raises:
            UserError: if it is to be normalised and there was no validation.
        """
        if reward is None or not self.normalize:
            return reward
        if not self.reward_std > 0:
            raise UserError("normalize: the checkpoint knows no mean and deviation of rewards: train with data.val")
        return float((reward - self.reward_mean) / self.reward_std)

    # ------------------------------------------------------------------------------------------- its checkpoints

    def configure_model(self) -> None:
        """Build the model; the run of a reward model brings its scale along."""
        built = self.model is not None
        super().configure_model()
        backbone: Any = self.backbone
        if not built and (scale := backbone.scale()) is not None:
            self.reward_mean.fill_(scale["mean"])
            self.reward_std.fill_(scale["std"])

    def on_train_start(self) -> None:
        """From here on the head means something."""
        self._judges = True
        super().on_train_start()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The checkpoint brings a trained head."""
        super().on_load_checkpoint(checkpoint)
        self._judges = True

    def on_test_start(self) -> None:
        """Refuse to judge by a head that was never trained."""
        self._require_trained()

    def on_predict_start(self) -> None:
        """Refuse to judge by a head that was never trained."""
        self._require_trained()

    def _require_trained(self) -> None:
        if not self._judges and self.parts.fingerprints["model"]["head"] != "trained":
            raise UserError("the head of this reward model is random: give its checkpoint with --ckpt_path")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what kind of model this is, and how its rewards are spread."""
        super().on_save_checkpoint(checkpoint)
        scale = {"mean": float(self.reward_mean), "std": float(self.reward_std)}
        checkpoint["language_model"]["reward"] = scale
