"""The base of methods that learn from what the policy itself writes while it is trained.

Prompts come in, the policy answers them as it is at that moment, and a method makes a batch of the answers. All prompts
of an optimizer step are answered before its first micro-batch. What is drawn depends on the seed, the step and the
prompt alone: a run that goes on, on other ranks or with another accumulation too, draws what it would have drawn. This
file knows how to generate. It does not know what is learnt from answers, nor where prompts come from.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.answer_forests import Answer, PairLayout, pair_forest
from lm.forests.batches import PairBatch, PromptBatch
from lm.generation import Decoding, Engine, Sample, engine_of
from lm.generation.sampling import seed_of
from modules.base.language_module import LanguageModule
from text.errors import UserError


class OnPolicy(LanguageModule):
    """Answers prompts, and has a method learn from the answers: ``class Yours(OnPolicy, DPO)``.

    Logged of a step: ``rollout/length`` (tokens of an answer, with its end token), ``rollout/finished`` (share of the
    answers that came to an end by themselves), ``rollout/seconds`` (until the batches of the step were made).

    Args:
        backbone: the policy.
        num_samples: answers of each prompt.
        decoding: how they are written.
        seed: of all draws.
        max_rollout_tokens: tokens that are held at once while answers are written.
        engine: ``cache``, ``plain``, or ``auto``, see docs/generation.md; those that draw by random numbers of their
            own, or with a copy of the weights, are of no use here.
        method: arguments of the method that learns.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_samples: int = 2,
        decoding: Decoding = Decoding(max_new_tokens=256, temperature=1.0),  # noqa: B008  frozen
        seed: int = 42,
        max_rollout_tokens: int = 16384,
        engine: Literal["auto", "cache", "plain"] = "auto",
        **method: Any,
    ):
        super().__init__(backbone, **method)
        if num_samples < 1 or (num_samples > 1 and decoding.temperature == 0):
            raise UserError(f"model: num_samples is {num_samples}: 1 or more, and 1 where nothing is drawn (greedy)")
        if getattr(self, "reference_mode", None) == "precomputed":
            raise UserError(
                "reference: 'precomputed' needs all answers beforehand, and these are written while the policy is "
                "trained: ask for 'copy', 'adapter_off', 'adapter_named' or 'auto'"
            )
        self.num_samples, self.decoding, self.seed = num_samples, decoding, seed
        self.max_rollout_tokens, self.engine_name = max_rollout_tokens, engine
        self._fresh: dict[tuple[int, int], Any] = {}  # what the present step learns from, by step and micro-batch
        self._place = (0, 0)

    @cached_property
    def engine(self) -> Engine:
        """What writes: the policy itself, with the weights and adapters that it has at the moment."""
        assert self.tokenizer is not None
        return engine_of(self.engine_name, self.model, self.tokenizer, self.max_rollout_tokens)

    @abstractmethod
    def batch_of(self, prompts: PromptBatch, samples: Sequence[Sequence[Sample]]) -> Any:
        """What the method learns from: a batch for its own `training_step`, wherever it is.

        Args:
            prompts: of a micro-batch.
            samples: ``num_samples`` answers to each.
        """

    # --- a step -----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Forget what an earlier fit wrote."""
        super().on_fit_start()
        self._fresh = {}

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """The method's own, on what is made of fresh answers."""
        self._place = self.global_step, batch_idx
        if self._place not in self._fresh:
            made = self._made([batch, *super()._rest_of_step()])
            self._fresh = {(self.global_step, later): one for later, one in enumerate(made, batch_idx)}
        return super().training_step(self._fresh[self._place], batch_idx)

    def _rest_of_step(self) -> list[Any]:
        """What the step goes on to learn from, in place of prompts."""
        return [batch for place, batch in self._fresh.items() if place > self._place]

    def _made(self, parts: Sequence[PromptBatch]) -> list[Any]:
        """Batches of some micro-batches of prompts, which are answered together."""
        began = time.perf_counter()
        seeds = [seed_of(self.seed, self.global_step, row) for part in parts for row in part.rows]
        prompts = [prompt for part in parts for prompt in part.prompts]
        samples = self.engine.generate(prompts, self.num_samples, self.decoding, seeds)
        of_each = (samples[n : n + self.num_samples] for n in range(0, len(samples), self.num_samples))
        with torch.no_grad():  # what is learnt from is given, whoever judged it
            made = [self.batch_of(part, [*islice(of_each, len(part))]).to(self.device) for part in parts]
        lengths = [float(len(written(sample))) for sample in samples]
        finished = [float(sample.finished) for sample in samples]
        told = {"length": lengths, "finished": finished, "seconds": [time.perf_counter() - began]}
        for name, numbers in told.items():
            self.log_for("train", f"rollout/{name}", torch.tensor(numbers, device=self.device))
        return made


def sampled_pairs(
    prompts: PromptBatch,
    chosen: Sequence[Sample],
    rejected: Sequence[Sample],
    weights: Sequence[float],
    layout: PairLayout = "answers",
    smoothing: Sequence[float] | None = None,
) -> PairBatch:
    """One pair of each prompt, of the very tokens that were drawn: an answer that was cut off has no end token.

    Args:
        prompts: of a micro-batch.
        chosen: the better answer to each.
        rejected: the other.
        weights: of the pairs' losses; 0 for one that teaches nothing.
        layout: that the method reads.
        smoothing: how likely it is that the other answer is the better one, where that is known.
    """

    def answers(side: Sequence[Sample]) -> list[Answer]:
        return [(np.array(p), np.array(written(one))) for p, one in zip(prompts.prompts, side, strict=True)]

    weights_B = torch.tensor(weights, dtype=torch.float32)
    forest = pair_forest(answers(chosen), answers(rejected), range(len(prompts)), layout)
    soft_B = None if smoothing is None else torch.tensor(smoothing, dtype=torch.float32)
    rows_B = torch.tensor(prompts.rows)
    return PairBatch(forest, rows_B, weights_B, torch.zeros_like(weights_B), prompts.ids, smoothing=soft_B)


def written(sample: Sample) -> list[int]:
    """All tokens of a sample that were drawn: with the end token, if there was one."""
    return [*sample.tokens, *([] if sample.end is None else [sample.end])]
