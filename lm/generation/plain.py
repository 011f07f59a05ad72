"""Generation that works with any causal model: batches of rows of like length through `model.generate`.

This file knows draws, and how they become batches. It does not know how a token is chosen, nor where a continuation
ends (lm/generation/engine.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from lm.backbones.adapters import is_adapted
from lm.forests.length_batches import length_batches
from lm.generation.engine import Decoding, Draw, Engine, Sample, left_padded
from text.errors import UserError


class PlainEngine(Engine):
    """Batches of rows of like length, padded on the left, through ``model.generate``.

    An FSDP2-sharded model works, if every rank calls `generate` equally often (also with no prefix at all); one with
    adapters is refused.

    Args:
        model: see Engine.
        tokenizer: see Engine.
        max_batch_tokens: see Engine.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int = 16384):
        super().__init__(model, tokenizer, max_batch_tokens)
        if self.sharded and is_adapted(model):
            raise UserError("a sharded model with adapters cannot generate: use --trainer.strategy ddp")

    def _run(self, draws: list[Draw], decoding: Decoding) -> Iterator[list[tuple[int, Sample]]]:
        """Batch by batch, then what was appended; an empty batch has one row, that nobody asked for."""
        begin = 0
        while batches := self._batches(draws[begin:], decoding):
            first, begin = begin, len(draws)
            for batch in batches:
                places = [first + number for number in batch]
                of_batch = [draws[place] for place in places] or [Draw([0], 0, 0)]
                yield [*zip(places, self._continue(of_batch, decoding), strict=False)]

    def _batches(self, draws: list[Draw], decoding: Decoding) -> list[list[int]]:
        """Numbers of draws by batch, the longest first; sharded ranks get equally many, the last ones empty."""
        lengths = np.array([len(draw.prefix) + decoding.max_new_tokens for draw in draws])
        batches = length_batches(lengths, self.max_batch_tokens)
        if self.sharded:  # each forward gathers weights from all ranks: nobody may leave early
            most = torch.tensor(len(batches), device=self.causal.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            batches += [[] for _ in range(int(most) - len(batches))]
        return batches

    def _continue(self, draws: list[Draw], decoding: Decoding) -> list[Sample]:
        """One batch through the model."""
        ids, mask = left_padded([draw.prefix for draw in draws], self.causal.device)
        width = torch.full((len(draws),), ids.shape[1], device=ids.device)
        rows, ends = self._write(draws, decoding, ids, mask, width, synced_gpus=self.sharded)
        return self._samples(rows, ends)
