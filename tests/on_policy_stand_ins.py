"""A method that learns on its own answers, the smallest there is: of two answers the longer one is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules.loading import Position, ResumableLoader
from lm.forests.batches import PairBatch, PromptBatch
from lm.generation.engine import Decoding, Sample
from modules.base.on_policy import OnPolicy, sampled_pairs
from modules.dpo import DPO
from tests.stand_ins import tiny_tokenizer

SHORT = Decoding(max_new_tokens=8, temperature=1.0, stop=("e", "t", "o", "a", "h"))  # about one token in six


class Longer(OnPolicy, DPO):
    """DPO towards longer answers.

    Args:
        kwargs: of both.
    """

    def __init__(self, *args: Any, decoding: Decoding = SHORT, **kwargs: Any):
        super().__init__(*args, decoding=decoding, **kwargs)
        self.seen: list[tuple[int, str, Sequence[Sample]]] = []

    def batch_of(self, prompts: PromptBatch, samples: Sequence[Sequence[Sample]]) -> PairBatch:
        """Pairs; equally long answers teach nothing."""
        self.seen += [(self.global_step, id, both) for id, both in zip(prompts.ids, samples, strict=True)]
        ordered = [sorted(both, key=lambda sample: -len(sample.tokens)) for both in samples]
        longer, shorter = zip(*ordered, strict=True)
        weights = [float(len(a.tokens) > len(b.tokens)) for a, b in ordered]
        return sampled_pairs(prompts, longer, shorter, weights, self.pair_layout)


class FixedPrompts(LightningDataModule):
    """Prompts in fixed order, ``step`` of them an optimizer step."""

    def __init__(self, number: int = 12, step: int = 4):
        super().__init__()
        self.number, self.step, self.tokenizer = number, step, tiny_tokenizer()

    def train_dataloader(self) -> ResumableLoader:
        accumulation = self.trainer.accumulate_grad_batches
        micro, repeats = self.step // accumulation, self.trainer.lightning_module.updates_per_rollout

        def batch_at(position: Position) -> PromptBatch:
            first = (position.step // repeats * self.step + position.in_epoch % accumulation * micro) % self.number
            return self.prompts(range(first, first + micro))

        return ResumableLoader(batch_at, self.number // micro * repeats, self.trainer, accumulation)

    def prompts(self, rows: Sequence[int]) -> PromptBatch:
        """Some of the prompts."""
        tokens = [[5 + row, *range(7, 8 + row % 4)] for row in rows]
        return PromptBatch(tokens, list(rows), [f"p{row}" for row in rows], [{} for _ in rows])
