"""A reward model as a judge: its reward is the score of an answer, and the likelier of two has the higher one.

Of two answers the probability that the first is better is that of Bradley and Terry, as reward models are trained. How
rewards are computed is in lm/judging/rater.py. This file does not know what verdicts are for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch

from lm.backbones.backbone import Backbone
from lm.judging.rater import Rater
from lm.judging.requests import Judge, JudgeRequest, Verdict, preferred
from lm.tokens.chat import ChatFormat


class RewardJudge(Judge):
    """A reward model that judges (`lm.judging.requests.Judge`), for configs; built when it is asked.

    It reads the instruction as one message of the user, and no rubric.

    Args:
        backbone: the run of a reward model (TrainedBackbone), or a published one (PretrainedBackbone), on the first
            GPU if there is one.
        chat: the template and system mode that it was trained with.
        max_length: see `lm.judging.rater.Rater`.
        max_batch_tokens: tokens that are held at once.
        empty: score of an answer without words, which no model rates; null gives it none, and GRPO, which needs a
            reward for every answer, then stops at the first one.
    """

    def __init__(
        self,
        backbone: Backbone,
        chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        max_length: int | None = None,
        max_batch_tokens: int = 16384,
        empty: float | None = None,
    ):
        self.backbone, self.chat, self.max_length, self.max_batch_tokens = backbone, chat, max_length, max_batch_tokens
        self.empty = empty

    @cached_property
    def rater(self) -> Rater:
        """What rates."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return Rater.of(self.backbone, self.chat, device, self.max_length, self.max_batch_tokens)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order; an empty answer has the score ``empty``, and loses against any."""
        asked = dict.fromkeys((request.instruction, text) for request in requests for text in request.responses)
        rated = self.rater.rate([{"prompt": instruction} for instruction, _ in asked], [[text] for _, text in asked])
        rewards = {one: reward for one, (reward,) in zip(asked, rated, strict=True)}
        of_each = [[rewards[request.instruction, text] for text in request.responses] for request in requests]
        return [_verdict(own, self.empty) for own in of_each]


def _verdict(rewards: Sequence[float | None], empty: float | None) -> Verdict:
    """A score, or a preference."""
    if len(rewards) == 1:
        score = empty if rewards[0] is None else rewards[0]
        return Verdict(reason="empty", parsed=False) if score is None else Verdict(score=score)
    if None in rewards:
        return Verdict(preference=preferred(*(float(reward is not None) for reward in rewards)))
    first, second = (reward for reward in rewards if reward is not None)
    likely = 1 / (1 + math.exp(max(-700.0, min(700.0, second - first))))
    return Verdict(preference=preferred(first, second), probabilities=(likely, 1 - likely))
