"""Generation: prefixes of tokens in, continuations out, the same ones whatever the batches, their order or the ranks.

Greedy decoding is transformers' own, token for token; sampling draws the token at (seed, draw, position) from that key
alone (lm/generation/sampling.py). This file knows models and tokens. It does not know how a prompt became tokens
(lm/tokens/chat.py).

Legend: B rows, W width of a padded prefix, S of what is written of its continuation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lm.backbones.adapters import base_of
from lm.backbones.end_tokens import end_tokens
from lm.backbones.evaluating import evaluating
from lm.generation.progress import Progress
from lm.generation.sampling import DRAWS, row_keys, samplers
from lm.generation.stopping import Ends, StopStrings
from text.errors import UserError


@dataclass(frozen=True)
class Decoding:
    """How continuations are chosen.

    Args:
        max_new_tokens: most tokens of a continuation; it also ends where the model's context is full.
        temperature: divides the scores before one is drawn; 0 takes the best token each time (greedy).
        top_p: draw from the smallest set of tokens with this probability mass.
        top_k: draw from so many best tokens; null is all.
        repetition_penalty: makes tokens that were there before unlikelier if above 1 (arXiv 1909.05858, section 4.1).
        stop: texts at which a continuation ends; they are not part of its text.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if isinstance(self.stop, str):
            raise UserError(f"decoding: 'stop' is {self.stop!r}; it is a list of texts")
        object.__setattr__(self, "stop", tuple(self.stop))
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k is None or self.top_k >= 1, "1 or more, or null"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0"),
            "stop": (all(self.stop), "a list of texts that are not empty"),
        }
        for name, (good, rule) in rules.items():
            if not good:
                raise UserError(f"decoding: '{name}' is {getattr(self, name)!r}; it must be {rule}")


class Sample(NamedTuple):
    """A continuation.

    Args:
        tokens: without the prefix and the end token; a stop string's are there.
        text: without special tokens and the stop string.
        finished: whether it came to an end by an end token or a stop string, not by its length.
    """

    tokens: tuple[int, ...]
    text: str
    finished: bool


@runtime_checkable
class Generates(Protocol):
    """An engine that continues prefixes of tokens, such as `lm.generation.plain.PlainEngine`."""

    def generate(
        self, prefixes: Sequence[Sequence[int]], k: int, decoding: Decoding, seeds: Sequence[int]
    ) -> list[Sample]:
        """``k`` samples per prefix, prefix by prefix; draw j of a prefix depends on its seed and j alone."""
        ...


class Draw(NamedTuple):
    """One row of work: the draw of this number from the continuations of a prefix.

    Args:
        prefix: tokens.
        seed: of the prefix.
        number: of the draw.
        root: tokens that begin with the prefix, and of which more beginnings may be continued (the steps of a
            solution); the prefix itself by default. An engine may compute them together; samples are the same.
    """

    prefix: Sequence[int]
    seed: int
    number: int
    root: Sequence[int] | None = None


class Drawing(ABC):
    """Whoever gives samples of draws gives some of each of several prefixes.

    Args:
        context: tokens that the model has room for.
    """

    def __init__(self, context: float):
        self.context = context

    def generate(
        self, prefixes: Sequence[Sequence[int]], k: int, decoding: Decoding, seeds: Sequence[int]
    ) -> list[Sample]:
        """``k`` samples of each prefix.

        Args:
            prefixes: tokens, at least one of each.
            k: samples per prefix; greedy ones are all the same.
            decoding: how tokens are chosen.
            seeds: one whole number per prefix. Draw j of a prefix depends on (seed, j) and the prefix alone.

        Returns: ``len(prefixes) * k`` samples, those of a prefix side by side.

        Raises:
            UserError: for a prefix without tokens or as long as the model's context, or a model whose scores are NaN.
        """
        if len(seeds) != len(prefixes) or k < 1:
            raise ValueError(f"{len(seeds)} seeds for {len(prefixes)} prefixes, {k} samples of each")
        for number, prefix in enumerate(prefixes):
            if not 0 < len(prefix) < self.context:
                most = f", and the model's context is {self.context}" if prefix else ": at least 1 is needed"
                raise UserError(f"prefix {number} has {len(prefix)} tokens{most}")
        different = k if decoding.temperature > 0 else 1
        draws = [Draw(p, s, j) for p, s in zip(prefixes, seeds, strict=True) for j in range(different)]
        found = dict(self.serve(draws, decoding))
        return [found[row * different + draw % different] for row in range(len(prefixes)) for draw in range(k)]

    @abstractmethod
    def serve(self, draws: list[Draw], decoding: Decoding) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw; see `Engine.serve`."""


class Engine(Drawing):
    """What engines share: draws, checks of prefixes, where rows end, and defaults that do not count.

    The model may be in the middle of its training: it is in eval mode with a key-value cache while it generates, and
    afterwards it is as it was. How draws become batches, and how a batch is computed, is the subclasses'.

    Args:
        model: a causal language model of transformers, or a `PeftModel` around one.
        tokenizer: its tokenizer.
        max_batch_tokens: tokens that the cache of a batch holds at most: rows times padded prefix and continuation. A
            longer row has a batch to itself.
    """

    drawn_by: ClassVar[str] = f"keys, {DRAWS}"
    """Which random numbers choose tokens: samples that others chose are other samples."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int = 16384):
        self.model, self.tokenizer, self.max_batch_tokens = model, tokenizer, max_batch_tokens
        self.causal = base_of(model)
        super().__init__(getattr(self.causal.config.get_text_config(), "max_position_embeddings", None) or math.inf)
        if max_batch_tokens < 1:
            raise UserError(f"max_batch_tokens is {max_batch_tokens}; it must be 1 or more")
        if not getattr(self.causal, "can_generate", bool)():
            raise UserError(f"{type(self.causal).__name__} cannot generate: it is no causal language model")
        self.sharded = isinstance(model, FSDPModule) and dist.get_world_size() > 1
        self.end_ids = end_tokens(self.causal, tokenizer)
        self.progress = Progress()

    def serve(self, draws: list[Draw], decoding: Decoding) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw, with the draw's place, in the order in which they come to their end.

        Draws that are appended in the meantime follow, so that what is drawn next can depend on what came. Whoever asks
        may compute gradients between samples: the model is in eval mode only while it writes. Its weights stay as they
        are until the last sample has come.

        Args:
            draws: as for `generate`.
            decoding: how tokens are chosen.
        """
        self.progress.begin(draws, decoding.max_new_tokens)
        batches = self._run(draws, decoding)
        while True:
            # Not around the `yield`: a generator that waits within a context leaves it open for whoever asks.
            with evaluating(self.model), self._own_defaults(), self._in_context():
                batch = next(batches, None)
            if batch is None:
                return
            for place, sample in batch:
                self.progress.finished(len(sample.tokens))
                yield place, sample

    @abstractmethod
    def _run(self, draws: list[Draw], decoding: Decoding) -> Iterator[list[tuple[int, Sample]]]:
        """The samples of `serve`, as many at a time as came to their end together."""

    def _write(
        self,
        draws: Sequence[Draw],
        decoding: Decoding,
        ids: Tensor,
        mask: Tensor,
        width: Tensor,
        most: float = math.inf,
        also: Callable[[Ends], list[StoppingCriteria]] = lambda ends: [],
        **options: Any,
    ) -> tuple[Tensor, Ends]:
        """Rows continued by ``model.generate``.

        Args:
            draws: whose rows these are, B of them.
            decoding: how tokens are chosen.
            ids: padded prefixes, and what was written of the rows so far [B, W + S].
            mask: 0 where `ids` are padding, like `ids`.
            width: of each row's padded prefix [B], int64.
            most: tokens that are written at most.
            also: what may stop all rows beside their ends, by the ends.
            options: more arguments of ``generate``.

        Returns: `ids` with what was written, and where rows ended.
        """
        left = [min(decoding.max_new_tokens, self.context - len(draw.prefix)) for draw in draws]
        room = torch.tensor(left, device=ids.device)
        chosen = decoding.temperature, decoding.top_p, decoding.top_k
        ends = Ends(width, room, self.end_ids, StopStrings(self.tokenizer, decoding.stop))
        keys = row_keys([draw.seed for draw in draws], [draw.number for draw in draws], ids.device)
        rows = self.causal.generate(
            ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=min(int((room + width).max()) - ids.shape[1], most),
                do_sample=False,  # the noise is among the scores
                use_cache=True,
                repetition_penalty=decoding.repetition_penalty,
            ),
            logits_processor=LogitsProcessorList([_FirstScores(ids.shape[1]), *samplers(*chosen, keys, width)]),
            stopping_criteria=StoppingCriteriaList([ends, *also(ends), self.progress.watch(ends)]),
            **options,
        )
        return rows, ends

    def _samples(self, rows: Tensor, ends: Ends) -> list[Sample]:
        """What `_write` wrote, row by row."""
        found = zip(rows.tolist(), ends.width.tolist(), ends.lengths.tolist(), ends.finished.tolist(), strict=True)
        written = ((row[width : width + length], finished) for row, width, length, finished in found)
        return [Sample(tuple(tokens), ends.stop.text(tokens), finished) for tokens, finished in written]

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


class _FirstScores(LogitsProcessor):
    """Refuses a model that gives no numbers: an argmax over NaN would write nonsense without a word."""

    def __init__(self, width: int):
        self.width = width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] == self.width and bool(scores.isnan().any()):
            raise UserError("the model's scores are not numbers (NaN): diverged weights, or float16 that overflows")
        return scores
