"""Best-of-N sampling: of N answers to a prompt, the one that a reward model likes best (arXiv 2405.17977, section 5).

This file knows prompts and how many answers are drawn. How answers are rated is in lm/judging/rater.py, where they go
in callbacks/responses.py.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch.distributed as dist

from lm.backbones.backbone import Backbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding
from lm.generation.engine import Generates
from lm.generation.sampling import seed_of
from lm.judging.best_of_n import Best, best_of_n, judged
from lm.judging.rater import Rater, Rewards
from lm.tokens.chat import ChatFormat
from metrics.benches.best_of_n import best_of_n_curve
from modules.base.language_module import LanguageModule
from text.errors import UserError


class BestOfN(LanguageModule):
    """Answers prompts N times and keeps the answer with the highest reward, the first of equal ones.

    Draw j of a prompt depends on ``seed``, the prompt's id and j alone. An empty answer is kept only if all are empty.

    Args:
        backbone: the model that answers, as in Generation.
        reward: the reward model: a TrainedBackbone with the run of one, or a PretrainedBackbone. Its tokenizer may be
            another one.
        n: answers that are drawn; up to 64 in the paper.
        decoding: how; temperature 1, top_p 0.9 and a repetition penalty of 1.03 in the paper's script.
        reward_chat: the template and system mode that the reward model was trained with.
        max_length: tokens that the reward model reads of a prompt with an answer; null is its context. Prompts are
            cut, answers never.
        seed: of the draws.
        max_batch_tokens: tokens that either model holds at once.
        engine: see Generation.

    Attributes:
        results: the mean reward of the best of 1, 2, 4, ... N, estimated without bias from all draws, and how many
            answers were empty.
    """

    def __init__(
        self,
        backbone: Backbone,
        reward: Backbone,
        n: int = 16,
        decoding: Decoding = Decoding(1024, temperature=1.0, top_p=0.9, repetition_penalty=1.03),  # noqa: B008  frozen
        reward_chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        max_length: int | None = 2048,
        seed: int = 0,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
    ):
        super().__init__(backbone)
        if n < 1:
            raise UserError(f"model: 'n' is {n}; it must be 1 or more")
        if decoding.temperature == 0 and n > 1:
            raise UserError("model: at temperature 0 all answers to a prompt are the same: raise decoding.temperature")
        self.reward_backbone, self.reward_chat, self.max_length = reward, reward_chat, max_length
        self.n, self.decoding, self.seed, self.max_batch_tokens = n, decoding, seed, max_batch_tokens
        self.engine_name: EngineName = engine
        self.rewards: list[Rewards] = []
        self.results: dict[str, Any] = {}

    @cached_property
    def engine(self) -> Generates:
        """What generates, once the model is built."""
        assert self.tokenizer is not None
        return engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)

    @cached_property
    def rater(self) -> Rater:
        """What judges; whole on every rank."""
        limits = self.max_length, self.max_batch_tokens
        return Rater.of(self.reward_backbone, self.reward_chat, self.device, *limits)

    def on_predict_start(self) -> None:
        """Nothing is rated yet; a reward model that is none is refused before anything is written."""
        self.rewards = []
        self.rater  # noqa: B018

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Best]:
        """The best answer to each prompt."""
        seeds = [seed_of(self.seed, name) for name in batch.ids]
        kept = best_of_n(self.engine, self.rater, batch, self.n, self.decoding, seeds)
        self.rewards += [best.rewards for best in kept]
        return kept

    def on_predict_epoch_end(self) -> None:
        """What N is worth."""
        parts: list[Any] = [self.rewards]
        if self.trainer.world_size > 1:
            dist.all_gather_object(parts := [None] * self.trainer.world_size, self.rewards)
        rewards = [of_prompt for part in parts for of_prompt in part]
        curve = best_of_n_curve(judged(rewards))
        empty = sum(reward is None for of_prompt in rewards for reward in of_prompt)
        self.results = {f"best_of_n/reward@{n}": reward for n, reward in curve.items()} | {"best_of_n/empty": empty}
        if self.trainer.is_global_zero:
            told = ", ".join(f"{reward:.4g} of {n}" for n, reward in curve.items())
            print(f"Mean reward of the best answer: {told}; empty answers: {empty} of {self.n * len(rewards)}")
