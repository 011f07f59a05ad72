"""Group-relative policy optimisation (arXiv 2402.03300, section 4): learn from rewards of several answers to a prompt.

The answers to a prompt are one tree of a forest, so that their prompt is computed once. This file knows rewards and
advantages. It does not know how answers are drawn (modules/base/on_policy.py), who gives rewards
(lm/judging/requests.py), nor the equations (losses/policy_gradient.py).

Legend: P answers, K tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.answer_forests import answer_forest
from lm.forests.batches import PromptBatch, RewardedBatch
from lm.generation import Decoding, Sample
from lm.generation.sampling import seed_of
from lm.judging.requests import Judge, JudgeRequest
from lm.scoring.logprobs import path_lengths
from losses.policy_gradient import Scale, clipped_surrogate, group_advantages, reverse_kl
from modules.base.on_policy import OnPolicy, written
from modules.base.policy_module import PolicyModule
from text.errors import UserError
from text.judging.pair_template import context_of, reference_of
from text.judging.rubrics import Criterion

Averaged = Literal["tokens", "answers", "constant"]


class _PolicyGradient(PolicyModule):
    """The loss of GRPO on answers whose advantages are known.

    Args:
        backbone: the policy.
        beta: weight of the KL to the reference, which there is only for a beta above 0; 0.04 in the paper.
        unbiased_kl: weigh the KL of a token by its ratio, so that the gradient is that of the KL itself (arXiv
            2512.02556); false is the paper's.
        averaged: the loss is a mean over the ``tokens`` of a step (DAPO, arXiv 2503.14476; TRL's default), over
            ``answers`` of the means over their tokens (the paper), or a sum over a ``constant``, answers times
            ``max_new_tokens`` (Dr. GRPO, arXiv 2503.20783).
        clip_low: epsilon below 1.
        clip_high: epsilon above 1; 0.28 in DAPO.
        policy: see PolicyModule.
    """

    longest: int  # tokens of an answer

    def __init__(
        self,
        backbone: Backbone,
        beta: float = 0.0,
        unbiased_kl: bool = True,
        averaged: Averaged = "tokens",
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        **policy: Any,
    ):
        super().__init__(backbone, **policy)
        if beta < 0 or not 0 < clip_low <= 1 or clip_high <= 0:
            told = f"beta is {beta}, clip_low {clip_low} and clip_high {clip_high}"
            raise UserError(f"model: {told}; 0 or more, from above 0 to 1, and above 0")
        self.settle_reference(beta > 0)
        self.beta, self.unbiased_kl, self.clip_low, self.clip_high = beta, unbiased_kl, clip_low, clip_high
        self.averaged: Averaged = averaged

    def training_step(self, batch: RewardedBatch, batch_idx: int) -> Tensor:
        """The loss; exact over the global batch, whatever its split into micro-batches and ranks."""
        forest, lengths_P = batch.forest, path_lengths(batch.forest)
        logprobs_K = self.forest_logprobs(forest)[forest.path_targets]
        if batch.old_logprobs is None:  # the first update of these answers: the policy is still the one that wrote them
            batch.old_logprobs = logprobs_K.detach()
        advantages_K = batch.advantages.repeat_interleave(lengths_P)
        losses_K = clipped_surrogate(logprobs_K, batch.old_logprobs, advantages_K, self.clip_low, self.clip_high)
        weights_K = batch.weights.repeat_interleave(lengths_P)
        ratio_K = (logprobs_K.detach() - batch.old_logprobs).exp()
        outside_K = (ratio_K < 1 - self.clip_low) | (ratio_K > 1 + self.clip_high)
        self.log_for("train", "outside_clip", outside_K.float(), weights_K)
        if self.beta:
            kl_K = reverse_kl(logprobs_K, self.reference(forest)[forest.path_targets])
            self.log_for("train", "kl", kl_K, weights_K)
            if self.unbiased_kl:
                kl_K = kl_K * (logprobs_K - batch.old_logprobs).exp()
            losses_K = losses_K + self.beta * kl_K
        if self.averaged == "tokens":
            return self.global_mean(losses_K, weights_K)
        if self.averaged == "answers":
            return self.global_mean(losses_K, weights_K / lengths_P.repeat_interleave(lengths_P))
        answers = self.step_total(batch, self._count)
        return self.global_mean(losses_K, weights_K / self.longest, total=answers)

    @staticmethod
    def _count(batch: RewardedBatch) -> Tensor:
        return batch.weights.sum()


class GRPO(OnPolicy, _PolicyGradient):  # type: ignore[misc]  # a step takes prompts, and answers within
    r"""Policy gradient with advantages within the answers to a prompt.

    With rewards :math:`r_i` of the answers to a prompt, :math:`A_i = (r_i - \bar r) / (s_r + 10^{-4})`; every token has
    the loss

    .. math:: \ell_{i,t} = -\min(\rho_{i,t} A_i, \mathrm{clip}(\rho_{i,t}, 1 - \epsilon_l, 1 + \epsilon_h) A_i)
              + \beta \, \mathrm{KL}_{i,t}.

    The ratio :math:`\rho` is to the policy that wrote the answers: 1 at the first update, where no clip acts, and free
    from the second on (``updates_per_rollout``).

    Logged of a step beside what OnPolicy logs: ``rollout/reward``, ``rollout/reward_std`` (within a group, the mean of
    it), ``rollout/alike`` (share of the prompts whose answers have equal rewards, and teach nothing), ``kl``,
    ``outside_clip`` (share of the tokens whose ratio has left the range of the clip).

    Args:
        backbone: the policy.
        reward: who scores an answer: a CheckerJudge for questions with a right answer, a ProgrammaticJudge, a
            RewardJudge, a language model.
        criterion: what a judge in words is to score by.
        num_samples: answers of each prompt, 2 or more; 64 in the paper, 8 in TRL.
        scale: what advantages are divided by, see `losses.policy_gradient.group_advantages`; ``batch`` is a
            micro-batch.
        truncated: answers that were cut off by their length: ``keep`` them, or ``drop`` their tokens from the loss.
        decoding: see OnPolicy; 1024 new tokens in the paper.
        method: see OnPolicy, PolicyModule, and beta, unbiased_kl, averaged, clip_low and clip_high above.
    """

    def __init__(
        self,
        backbone: Backbone,
        reward: Judge,
        criterion: str = "Is the answer right?",
        num_samples: int = 8,
        scale: Scale = "group",
        truncated: Literal["keep", "drop"] = "keep",
        decoding: Decoding = Decoding(max_new_tokens=256, temperature=1.0),  # noqa: B008  frozen
        **method: Any,
    ):
        super().__init__(backbone, num_samples=num_samples, decoding=decoding, **method)
        if num_samples < 2:
            raise UserError(f"model: num_samples is {num_samples}: advantages are within a group of 2 or more")
        self.reward, self.criterion = reward, Criterion(criteria=criterion, name=criterion)
        self.scale, self.truncated = scale, truncated
        self.longest = decoding.max_new_tokens

    # --- rewards ----------------------------------------------------------------------------------------------------

    def batch_of(self, prompts: PromptBatch, samples: Sequence[Sequence[Sample]]) -> RewardedBatch:
        """All answers as paths, those of a prompt one tree, with their advantages."""
        rewards_GS = self._rewards(prompts, samples)
        self._log_rewards(rewards_GS)
        answers = [
            (np.array(prompt), np.array(written(sample)))
            for prompt, own in zip(prompts.prompts, samples, strict=True)
            for sample in own
        ]
        trees = [number for number, own in enumerate(samples) for _ in own]
        counted = [self.truncated == "keep" or sample.finished for own in samples for sample in own]
        advantages_P = group_advantages(rewards_GS, self.scale).flatten().float()
        weights_P = torch.tensor(counted, dtype=torch.float32)
        return RewardedBatch(answer_forest(answers, trees), advantages_P, weights_P, prompts.ids)

    def _rewards(self, prompts: PromptBatch, samples: Sequence[Sequence[Sample]]) -> Tensor:
        """Rewards of the answers to each prompt [G, S], float64."""
        requests = [
            JudgeRequest(
                id,
                context_of(record),
                (sample.text,),
                self.criterion,
                reference_of(record),
                draw,
            )
            for id, record, own in zip(prompts.ids, prompts.records, samples, strict=True)
            for draw, sample in enumerate(own)
        ]
        verdicts = self.reward.judge(requests)
        for request, verdict in zip(requests, verdicts, strict=True):
            if verdict.score is None:
                told = f"the judge has no score for an answer to '{request.id}' ({verdict.reason})"
                remedy = "a reward is needed for every answer, also for one that is empty (RewardJudge: give 'empty')"
                raise UserError(f"{told}: {remedy}")
        scores = torch.tensor([verdict.score for verdict in verdicts], dtype=torch.float64)
        return scores.view(len(prompts), -1)

    def _log_rewards(self, rewards_GS: Tensor) -> None:
        rewards_GS = rewards_GS.to(self.device, torch.float32)
        self.log_for("train", "rollout/reward", rewards_GS)
        self.log_for("train", "rollout/reward_std", rewards_GS.std(dim=1))
        self.log_for("train", "rollout/alike", (rewards_GS.amax(1) == rewards_GS.amin(1)).float())

    # --- its measure ------------------------------------------------------------------------------------------------

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """``val/reward`` and ``val/length``: of one greedy answer to each held-out prompt."""
        seeds = [seed_of(self.seed, id) for id in batch.ids]
        samples = self.engine.generate(batch.prompts, 1, replace(self.decoding, temperature=0.0), seeds)
        rewards_G1 = self._rewards(batch, [[sample] for sample in samples])
        self.log_for("val", "reward", rewards_G1.to(self.device, torch.float32))
        lengths = [float(len(written(sample))) for sample in samples]
        self.log_for("val", "length", torch.tensor(lengths, device=self.device))
