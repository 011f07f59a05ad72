"""Generation that works with any causal model: batches of rows of like length through `model.generate`.

This file knows draws, and how they become batches. It does not know how a token is chosen, nor where a continuation
ends (lm/generation/engine.py).

Legend: P rows that pause, D width of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.adapters import is_adapted
from lm.forests.length_batches import length_batches
from lm.generation.decoding import Decoding, Draw
from lm.generation.engine import Engine, head_inputs, left_padded
from lm.generation.rows import Row, Work, Written
from text.errors import UserError

NOBODY = Draw([0], 0, 0)


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

    def _run(self, work: Work) -> Iterator[list[Written]]:
        """Batch by batch, then what has come meanwhile; an empty batch has one row, that nobody asked for."""
        rows = work.new()
        while batches := self._batches(rows):
            for batch in batches:
                yield self._continue(work, [rows[number] for number in batch])
            rows = work.new()

    def _batches(self, rows: list[Row]) -> list[list[int]]:
        """Numbers of rows by batch, the longest first; sharded ranks get equally many, the last ones empty."""
        batches = length_batches(np.array([row.most for row in rows]), self.max_batch_tokens)
        if self.sharded:  # each forward gathers weights from all ranks: nobody may leave early
            most = torch.tensor(len(batches), device=self.causal.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            batches += [[] for _ in range(int(most) - len(batches))]
        return batches

    def _continue(self, work: Work, rows: list[Row]) -> list[Written]:
        """One batch through the model."""
        asked = rows or [Row(-1, NOBODY, Decoding(max_new_tokens=1))]
        ids, mask = left_padded([row.tokens for row in asked], self.causal.device)
        width = torch.tensor([ids.shape[1] - len(row.written) for row in asked], device=ids.device)
        self.prefilled += sum(len(row.tokens) for row in rows)
        written, ends = self._write(work, asked, ids, mask, width, synced_gpus=self.sharded)
        found = [*self._ended(asked, written, ends).values()][: len(rows)]
        paused = [one.row for one in found if one.sample is None]
        states = iter(self._states(paused) if paused or (self.sharded and work.hook) else ())
        return [one._replace(state=next(states)) if one.sample is None else one for one in found]

    def _states(self, rows: Sequence[Row]) -> Tensor:
        """What the head reads at the last token of each row [P, D]: all of it is computed again."""
        with head_inputs(self.causal) as states:
            self._read(*left_padded([row.tokens for row in rows] or [NOBODY.prefix], self.causal.device))
        self.prefilled += sum(len(row.tokens) for row in rows)
        return states[-1]
