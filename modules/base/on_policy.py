"""The base of methods that learn from what the policy itself writes while it is trained.

Prompts come in, the policy answers them as it is at that moment, and a method makes a batch of the answers. All prompts
of an optimizer step are answered before its first micro-batch. What is drawn depends on the seed, the step and the
prompt alone: a run that goes on, on other ranks or with another accumulation too, draws what it would have drawn. What
several steps learn from travels with the checkpoint (modules/base/rollouts.py). This file knows how to generate. It
does not know what is learnt from answers, nor where prompts come from.
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
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.answer_forests import Answer, PairLayout, pair_forest
from lm.forests.batches import PairBatch, PromptBatch
from lm.generation import Decoding, Engine, Sample, engine_of
from lm.generation.sampling import seed_of
from lm.steps.gather import merge_over_ranks, ranks
from modules.base.exact_logs import Split
from modules.base.language_module import LanguageModule
from modules.base.rollouts import Rollout, Told
from text.errors import UserError


class OnPolicy(LanguageModule):
    """Answers prompts, and has a method learn from the answers: ``class Yours(OnPolicy, DPO)``.

    Logged of a step: ``rollout/length`` (tokens of an answer, with its end token), ``rollout/finished`` (share of the
    answers that came to an end by themselves), ``rollout/seconds`` (until the batches of the step were made); and where
    answers serve several steps ``rollout/age`` (steps since they were drawn). These, and what a method logs of its
    answers, are logged at every step that learns from them.

    Args:
        backbone: the policy.
        num_samples: answers of each prompt.
        decoding: how they are written.
        seed: of all draws.
        max_rollout_tokens: tokens that are held at once while answers are written.
        engine: ``cache``, ``plain``, or ``auto``, see docs/generation.md; those that draw by random numbers of their
            own, or with a copy of the weights, are of no use here.
        updates_per_rollout: so many optimizer steps in turn learn from the answers of the first of them; above 1 the
            others are no longer on-policy. An epoch has so many times its steps.
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
        updates_per_rollout: int = 1,
        **method: Any,
    ):
        super().__init__(backbone, **method)
        if updates_per_rollout < 1:
            raise UserError(f"model: updates_per_rollout is {updates_per_rollout}: 1 or more")
        if num_samples < 1 or (num_samples > 1 and decoding.temperature == 0):
            raise UserError(f"model: num_samples is {num_samples}: 1 or more, and 1 where nothing is drawn (greedy)")
        if getattr(self, "reference_mode", None) == "precomputed":
            raise UserError(
                "reference: 'precomputed' needs all answers beforehand, and these are written while the policy is "
                "trained: ask for 'copy', 'adapter_off', 'adapter_named' or 'auto'"
            )
        self.num_samples, self.decoding, self.seed = num_samples, decoding, seed
        self.max_rollout_tokens, self.engine_name = max_rollout_tokens, engine
        self.updates_per_rollout = updates_per_rollout
        self._rollout: Rollout | None = None  # what the present step learns from
        self._saved: dict[str, Any] | None = None  # one that a checkpoint brought
        self._number = 0  # of the micro-batch in its step
        self._told: list[Told] | None = None  # what is told while answers are drawn

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

    def setup(self, stage: str) -> None:
        """Forget what a checkpoint brought to an earlier run."""
        super().setup(stage)
        self._saved = None

    def on_train_start(self) -> None:
        """Forget what an earlier fit wrote; go on with what the checkpoint brings: to sharded models just before."""
        super().on_train_start()
        self._rollout = None if self._saved is None else Rollout.of_plain(self._saved, self.device)
        self._saved = None

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """The method's own, on what is made of fresh answers."""
        self._number = batch_idx % self.trainer.accumulate_grad_batches
        if (rollout := self._rollout) is None or not self._serves(rollout, batch):
            rollout = self._rollout = self._drawn([batch, *super()._rest_of_step()])
        if self._number == min(rollout.batches):
            for name, values, weights in rollout.told:
                self.log_for("train", name, values, weights)
        if self.updates_per_rollout > 1:
            age = float(self.global_step - rollout.step)
            self.log_for("train", "rollout/age", torch.tensor(age, device=self.device))
        return super().training_step(rollout.batches[self._number], batch_idx)

    def _serves(self, rollout: Rollout, batch: PromptBatch) -> bool:
        """Whether these prompts were answered, and may be learnt from once more."""
        if self.global_step - rollout.step >= self.updates_per_rollout:
            return False
        found = rollout.batches.get(self._number)
        if found is not None and found.ids == batch.ids:
            return True
        if self.global_step > rollout.step:
            rank_zero_warn(
                f"step {self.global_step} asks for other prompts than those that were answered at step {rollout.step}: "
                "they are answered now. A run that goes on within a rollout repeats itself only on as many ranks and "
                "accumulated batches"
            )
        return False

    def _rest_of_step(self) -> list[Any]:
        """What the step goes on to learn from, in place of prompts."""
        assert self._rollout is not None
        return [batch for number, batch in self._rollout.batches.items() if number > self._number]

    def log_for(self, split: Split, name: str, values: Tensor, weights: Tensor | None = None) -> None:
        """As everywhere; what is told while answers are drawn is kept for all steps that learn from them."""
        if self._told is None:
            super().log_for(split, name, values, weights)
        else:
            self._told.append((name, values, weights))

    def _drawn(self, parts: Sequence[PromptBatch]) -> Rollout:
        """Batches of the rest of a step."""
        told: list[Told] = []
        self._told = told
        try:
            return Rollout(self.global_step, dict(enumerate(self._made(parts), self._number)), told)
        finally:
            self._told = None

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

    # --- its checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what steps to come learn from and could not be drawn again, of every rank."""
        super().on_save_checkpoint(checkpoint)
        kept = self._rollout
        if kept is not None and 0 < self.global_step - kept.step < self.updates_per_rollout:
            checkpoint["rollouts"] = merge_over_ranks({ranks()[0]: kept.plain()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up this rank's."""
        super().on_load_checkpoint(checkpoint)
        self._saved = checkpoint.get("rollouts", {}).get(ranks()[0])


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
