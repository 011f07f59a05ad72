"""Generation: prefixes of tokens in, continuations out, the same ones whatever the batches, their order or the ranks.

Greedy decoding is transformers' own, token for token; sampling draws the token at (seed, draw, position) from that key
alone (lm/generation/sampling.py). This file knows models and tokens. It does not know how a prompt became tokens
(lm/tokens/chat.py).

Legend: B rows, W width of a padded prefix, S of what is written of its continuation, D width of the model.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lm.backbones.adapters import base_of
from lm.backbones.context import context_of
from lm.backbones.end_tokens import end_tokens
from lm.backbones.evaluating import evaluating
from lm.forests.vector_ids import FIRST_VECTOR
from lm.generation.decoding import Decoding, Draw, Drawing, Replied, Sample, TokenHook
from lm.generation.progress import Progress
from lm.generation.rows import Row, Work, Written
from lm.generation.sampling import DRAWS, processors, row_keys
from lm.generation.stopping import Ends, StopStrings
from lm.scoring.inputs import require_vector_inputs, require_vocabulary, vector_inputs
from text.errors import UserError


@runtime_checkable
class Generates(Protocol):
    """Whoever continues prefixes of tokens, such as an `Engine`."""

    def generate(
        self,
        prefixes: Sequence[Sequence[int]],
        k: int,
        decoding: Decoding | Sequence[Decoding],
        seeds: Sequence[int],
        hook: TokenHook | None = None,
    ) -> list[Sample]:
        """``k`` samples per prefix, prefix by prefix; draw j of a prefix depends on its seed and j alone."""
        ...


class Engine(Drawing):
    """What engines share: draws, checks of prefixes, where rows end, and defaults that do not count.

    The model may be in the middle of its training: it is in eval mode with a key-value cache while it generates, and
    afterwards it is as it was. How draws become batches, and how a batch is computed, is the subclasses'.

    Args:
        model: a causal language model of transformers, or a `PeftModel` around one.
        tokenizer: its tokenizer.
        max_batch_tokens: tokens that the cache of a batch holds at most: rows times padded prefix and continuation. A
            longer row has a batch to itself.

    Attributes:
        prefilled: tokens of prefixes and replies that were computed so far.
        vectors: the table [E, D] whose rows the ids of vectors in prefixes stand for (lm/forests/vector_ids.py), on the
            model's device; of the calls that follow.
    """

    drawn_by: ClassVar[str] = f"keys, {DRAWS}"
    """Which random numbers choose tokens: samples that others chose are other samples."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int = 16384):
        self.model, self.tokenizer, self.max_batch_tokens = model, tokenizer, max_batch_tokens
        self.causal = base_of(model)
        context = context_of(self.causal.config) or math.inf
        super().__init__(context, isinstance(model, FSDPModule) and dist.get_world_size() > 1)
        if max_batch_tokens < 1:
            raise UserError(f"max_batch_tokens is {max_batch_tokens}; it must be 1 or more")
        if not getattr(self.causal, "can_generate", bool)():
            raise UserError(f"{type(self.causal).__name__} cannot generate: it is no causal language model")
        self.end_ids = end_tokens(self.causal, tokenizer)
        self.progress, self.prefilled = Progress(), 0
        self.vectors: Tensor | None = None

    def serve(
        self, draws: list[Draw], decoding: Decoding, hook: TokenHook | None = None
    ) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw, with the draw's place, in the order in which they come to their end.

        Draws that are appended in the meantime follow, so that what is drawn next can depend on what came. Whoever asks
        may compute gradients between samples: the model is in eval mode only while it writes. Its weights stay as they
        are until the last sample has come.

        Args:
            draws: as for `generate`.
            decoding: how tokens are chosen, for draws that do not say it.
            hook: what is asked when certain tokens are written.
        """
        work = Work(draws, decoding, hook)
        self._require_vectors(draws)
        self.progress.begin(draws, max(((draw.decoding or decoding).max_new_tokens for draw in draws), default=0))
        batches = self._run(work)
        while True:
            # Not around the `yield`: a generator that waits within a context leaves it open for whoever asks.
            with evaluating(self.model), self._own_defaults(), self._in_context(), self._with_vectors():
                batch = next(batches, None)
            if batch is None:
                return
            ended = [(written.row.place, written.sample) for written in batch if written.sample is not None]
            for place, sample in [*ended, *self._go_on(work, batch)]:
                self.progress.finished(len(sample.tokens))
                yield place, sample

    def _require_vectors(self, draws: Sequence[Draw]) -> None:
        """Refuse prefixes with vectors that nobody gave, and models that cannot take them."""
        largest = max((max(draw.prefix) for draw in draws), default=0)
        if largest >= FIRST_VECTOR:
            require_vocabulary(self.causal, torch.tensor([largest]), self.vectors)
            require_vector_inputs(self.model, self.causal, self.causal.device)

    def _with_vectors(self) -> AbstractContextManager[None]:
        return vector_inputs(self.causal, self.vectors)

    @abstractmethod
    def _run(self, work: Work) -> Iterator[list[Written]]:
        """What became of the rows, as many at a time as ended or paused together."""

    def _go_on(self, work: Work, batch: Sequence[Written]) -> Iterator[tuple[int, Sample]]:
        """Rows that paused are to be written on; those that have no room for it end."""
        for row, reply in work.replies(batch):
            decoding = reply.decoding or row.decoding
            room, tokens = self._room(replace(row, decoding=decoding)), tuple(reply.tokens)
            fits = len(row.written) + len(tokens) <= room
            replied = Replied(len(row.written), len(tokens) if fits else 0, reply.note)
            written = row.written + tokens if fits else row.written
            row = replace(row, decoding=decoding, written=written, replies=(*row.replies, replied))
            if fits and len(written) < room:
                work.resume(row)
            else:
                yield row.place, self._sample(row, finished=False)

    def _room(self, row: Row) -> int:
        """Most tokens of its continuation."""
        return int(min(row.decoding.max_new_tokens, self.context - len(row.draw.prefix)))

    def _stops(self, rows: Sequence[Row]) -> list[StopStrings]:
        alike = {row.decoding.stop: StopStrings(self.tokenizer, row.decoding.stop) for row in rows}
        return [alike[row.decoding.stop] for row in rows]

    def _write(
        self,
        work: Work,
        rows: Sequence[Row],
        ids: Tensor,
        mask: Tensor,
        width: Tensor,
        most: float = math.inf,
        also: Callable[[Ends], list[StoppingCriteria]] = lambda ends: [],
        **options: Any,
    ) -> tuple[Tensor, Ends]:
        """Rows continued by ``model.generate``.

        Args:
            work: of which they are a part.
            rows: B of them.
            ids: padded prefixes, and what was written of the rows so far [B, W + S].
            mask: 0 where `ids` are padding, like `ids`.
            width: of each row's padded prefix [B], int64.
            most: tokens that are written at most.
            also: what may stop all rows beside their ends, by the ends.
            options: more arguments of ``generate``.

        Returns: `ids` with what was written, and where rows ended.
        """
        room = torch.tensor([self._room(row) for row in rows], device=ids.device)
        own = [row.own for row in rows]
        ends = Ends(width, room, self.end_ids, self._stops(rows), own, work.pause_ids)
        keys = row_keys([row.draw.seed for row in rows], [row.draw.number for row in rows], ids.device)
        chosen = processors([row.decoding for row in rows], keys, width)
        written = self.causal.generate(
            ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=min(int((room + width).max()) - ids.shape[1], most),
                do_sample=False,  # the noise is among the scores
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([_FirstScores(ids.shape[1], rows), *chosen]),
            stopping_criteria=StoppingCriteriaList([ends, *also(ends), self.progress.watch(ends)]),
            **options,
        )
        return written, ends

    def _read(self, ids: Tensor, mask: Tensor, **options: Any) -> None:
        """One forward over padded tokens, as `_write` makes it; what is in a cache is not computed again."""
        settings = GenerationConfig(max_new_tokens=1, do_sample=False, use_cache=True)
        self.causal.generate(ids, attention_mask=mask, generation_config=settings, **options)

    def _ended(self, rows: Sequence[Row], ids: Tensor, ends: Ends) -> dict[int, Written]:
        """What became of the rows of `_write` that are done, by their place in the batch; states are still to come."""
        values = ids, ends.done, ends.width, ends.lengths, ends.finished, ends.end, ends.paused
        told = {}
        for number, (line, done, width, length, finished, end, paused) in enumerate(
            zip(*(value.tolist() for value in values), strict=True)
        ):
            if done:
                row = replace(rows[number], written=tuple(line[width : width + length]))
                sample = None if paused else self._sample(row, finished, end if end >= 0 else None)
                told[number] = Written(row, sample)
        return told

    def _sample(self, row: Row, finished: bool, end: int | None = None) -> Sample:
        (stop,) = self._stops([row])
        return Sample(row.written, stop.text(row.written, row.own), finished, end, row.replies)

    @contextmanager
    def _own_defaults(self) -> Iterator[None]:
        """What a published model wants by default (a temperature, a penalty) is left out: `Decoding` says it all."""
        published = self.causal.generation_config
        self.causal.generation_config = GenerationConfig()
        try:
            yield
        finally:
            self.causal.generation_config = published

    @contextmanager
    def _in_context(self) -> Iterator[None]:
        """A row that has filled the context is carried along until others end: learned positions go no further."""

        def clamped(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            positions = kwargs.get("position_ids")
            inside = {} if positions is None else {"position_ids": positions.clamp(max=int(self.context) - 1)}
            return args, kwargs | inside

        if math.isinf(self.context):
            yield
            return
        hook = self.causal.register_forward_pre_hook(clamped, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


def left_padded(prefixes: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, W], W of the longest; rows are padded with what they begin with, which no penalty can tell."""
    width = max(map(len, prefixes))
    ids = torch.tensor([[prefix[0]] * (width - len(prefix)) + list(prefix) for prefix in prefixes])
    mask = torch.tensor([[0] * (width - len(prefix)) + [1] * len(prefix) for prefix in prefixes])
    return ids.to(device), mask.to(device)


@contextmanager
def head_inputs(causal: PreTrainedModel) -> Iterator[list[Tensor]]:
    """What the head reads in the last column of each forward meanwhile [B, D]."""
    seen: list[Tensor] = []
    head = causal.get_output_embeddings()
    if head is None:
        raise UserError(f"{type(causal).__name__} has no output layer whose state could be given to a hook")
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, -1]))
    try:
        yield seen
    finally:
        hook.remove()


class _FirstScores(LogitsProcessor):
    """Refuses a model that gives no numbers: an argmax over NaN would write nonsense without a word."""

    def __init__(self, width: int, rows: Sequence[Row]):
        self.width, self.forbidden = width, max((0, *(id for row in rows for id in row.decoding.forbidden)))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > self.width:
            return scores
        if self.forbidden >= scores.shape[1]:
            raise UserError(f"decoding: 'forbidden' names {self.forbidden}, and the model has {scores.shape[1]} tokens")
        if bool(scores.isnan().any()):
            raise UserError("the model's scores are not numbers (NaN): diverged weights, or float16 that overflows")
        return scores
