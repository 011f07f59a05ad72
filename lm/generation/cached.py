"""Generation that computes every prefix once: its keys and values are kept, repeated over draws, and cut for steps.

The samples are those of lm/generation/plain.py. This file knows draws, and which of them are written at a time. It does
not know how a token is chosen, where a continuation ends (lm/generation/engine.py), nor how keys and values are kept
(lm/generation/rolling_cache.py).

Legend: B rows, W columns of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm.generation.engine import Decoding, Draw, Engine, Sample, left_padded
from lm.generation.plain import PlainEngine
from lm.generation.rolling_cache import KeysValues, RollingCache, rows_of
from lm.generation.served import ContinuousEngine, VLLMEngine
from lm.generation.stopping import Ends
from text.errors import UserError

REFILL = 8  # one of so many rows may have ended before others take their place: to stop costs a forward's worth
ROOM = 64  # columns of the cache beyond what rows can fill: the more, the seldomer it is moved


class CacheEngine(Engine):
    """A batch whose rows are replaced as they end, and whose prefixes are computed once.

    The draws of a root share its computation; see lm.generation.engine.Draw. The longest come first, and what is
    appended at once, for its root is at hand.

    Args:
        model: see Engine. Every layer keeps keys and values of its tokens: a recurrent one cannot be cut.
        tokenizer: see Engine.
        max_batch_tokens: see Engine; roots that are kept take half as much again.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int = 16384):
        super().__init__(model, tokenizer, max_batch_tokens)
        if self.sharded:
            raise UserError("the cache engine does not generate from sharded models: use PlainEngine (engine: plain)")
        if not _keeps_all_tokens(self.causal):
            raise UserError(
                f"{type(self.causal).__name__} does not keep keys and values of each token: use PlainEngine "
                "(engine: plain)"
            )

    def _run(self, draws: list[Draw], decoding: Decoding) -> Iterator[list[tuple[int, Sample]]]:
        """The rows of a batch, which others replace as they end; see Engine."""
        if not draws:
            return
        roots = _Roots(self.causal, self.max_batch_tokens // 2)
        rows = _Rows(self.causal.device)
        waiting = deque(_longest_first([self._root(draw) for draw in draws]))
        weights = self._weights()
        while waiting or rows.live:
            if self._weights() != weights:  # what is kept was computed with the old ones
                raise UserError("the weights changed between two samples: use engine: plain, or ask anew")
            taken, columns = self._next(draws, rows.live, waiting, decoding.max_new_tokens)
            computed = roots.take([self._root(draws[place]) for place in taken])
            rows.fill([(place, draws[place].prefix, row) for place, row in zip(taken, computed, strict=True)], columns)
            enough = max(1, len(rows.places) // REFILL)
            written, ends = self._write(
                [draws[place] for place in rows.live],
                decoding,
                rows.ids,
                rows.mask,
                rows.width,
                rows.cache.room,
                partial(_many_ended, enough),
                past_key_values=rows.cache,
            )
            samples = self._samples(written, ends)
            begin = len(draws)
            yield rows.take(written, samples, ends.done.tolist())
            waiting.extendleft(reversed(range(begin, len(draws))))

    def _next(
        self, draws: Sequence[Draw], live: Sequence[int], waiting: deque[int], most: int
    ) -> tuple[list[int], int]:
        """Who is taken in beside those that live: as many as have room, each with the prefix of the longest of them.

        So a long prefix makes room for many short ones once it has ended.

        Returns: their places, and the columns that rows can fill.
        """
        taken: list[int] = []
        columns = max((len(draws[place].prefix) for place in live), default=0) + most
        while waiting:
            wider = max(columns, len(draws[waiting[0]].prefix) + most)
            count = len(live) + len(taken)
            if count and (count + 1) * wider > self.max_batch_tokens:
                break
            columns = wider
            taken.append(waiting.popleft())
        return taken, columns

    def _weights(self) -> list[int]:
        """Changes when they do; weights that were made in inference mode (a judge's, in a test) have no counter."""
        return [weight._version for weight in self.model.parameters() if not weight.is_inference()]

    def _root(self, draw: Draw) -> tuple[int, ...]:
        """As much of it as the context has room for."""
        root = draw.prefix if draw.root is None else draw.root
        return tuple(root[: int(min(self.context, len(root)))])


class _Rows:
    """The rows that are written at the moment.

    Args:
        device: of the model.

    Attributes:
        places: of the draws whose rows these are, B of them; None where one has ended.
        ids: padding, prefixes and what was written, [B, W].
        mask: 0 where `ids` are padding, like `ids`.
        width: columns of each row before its continuation [B].
        cache: of all columns but the last.
    """

    def __init__(self, device: torch.device):
        self.places = list[int | None]()
        self.ids = self.mask = torch.zeros(0, 1, dtype=torch.long, device=device)
        self.width = torch.zeros(0, dtype=torch.long, device=device)
        self.cache = RollingCache()

    @property
    def live(self) -> list[int]:
        """Places of the draws whose rows go on."""
        return [place for place in self.places if place is not None]

    def fill(self, taken: Sequence[tuple[int, Sequence[int], KeysValues]], most: int) -> None:
        """Put draws with their prefixes, and what was computed of these, where rows have ended, and behind them.

        Rows that have ended and are not needed are left behind, and so are columns that are padding in all rows.

        Args:
            taken: place, prefix, and keys and values of each.
            most: columns that rows can fill.
        """
        live = [row for row, place in enumerate(self.places) if place is not None]
        count = len(live) + len(taken)
        ended = [row for row, place in enumerate(self.places) if place is None]
        fresh = [*ended, *range(len(self.places), count)][: len(taken)]
        moves = dict(zip(ended[len(taken) :], (row for row in live if row >= count), strict=False))
        source = {row: row for row in live if row < count} | moves
        columns = max([*(len(prefix) for _, prefix, _ in taken), *self.mask[live].sum(dim=1).tolist()])

        self.cache.move(moves, count, self.ids.device)
        self.cache.fit(most + ROOM, columns - 1)
        self.cache.begin(columns - 1, taken[0][2] if taken else [])
        alike: dict[tuple[int, int], tuple[KeysValues, list[int]]] = {}  # draws of one prefix
        for row, (_, prefix, computed) in zip(fresh, taken, strict=True):
            alike.setdefault((id(computed), len(prefix) - 1), (computed, []))[1].append(row)
        for (_, tokens), (computed, of_one) in alike.items():
            self.cache.place(of_one, computed, tokens)
        if self.cache.room < ROOM:
            self.cache.make_room()

        rows, kept = [*source], [*source.values()]
        ids, mask = self.ids.new_zeros(2, count, columns)
        width = torch.full((count,), columns, device=ids.device)
        width[rows] += self.width[kept] - self.ids.shape[1]
        ids[rows], mask[rows] = _fitted(self.ids[kept], columns), _fitted(self.mask[kept], columns, 0)
        if taken:
            prefixes, real = left_padded([prefix for _, prefix, _ in taken], ids.device)
            ids[fresh], mask[fresh] = _fitted(prefixes, columns), _fitted(real, columns, 0)
        place_of = {row: self.places[old] for row, old in source.items()}
        place_of |= {row: place for row, (place, _, _) in zip(fresh, taken, strict=True)}
        self.places = [place_of[row] for row in range(count)]
        self.ids, self.mask, self.width = ids, mask, width

    def take(self, written: Tensor, samples: Sequence[Sample], done: Sequence[bool]) -> list[tuple[int, Sample]]:
        """What was written of the rows; those that are done come out with their place."""
        finished = []
        self.mask = F.pad(self.mask, (0, written.shape[1] - self.mask.shape[1]), value=1)
        self.ids = written
        for row, (sample, ended) in enumerate(zip(samples, done, strict=True)):
            if ended:
                place, self.places[row] = self.places[row], None
                assert place is not None
                finished.append((place, sample))
        return finished


class _Roots:
    """Keys and values of roots: computed together when they are wanted, and kept until others need their room.

    Args:
        causal: the model.
        tokens: that are kept beside those in use, and computed at a time.
    """

    def __init__(self, causal: PreTrainedModel, tokens: int):
        self.causal, self.tokens = causal, tokens
        self._kept: dict[tuple[int, ...], KeysValues] = {}  # what was not in use for the longest time comes first

    def take(self, wanted: Sequence[tuple[int, ...]]) -> list[KeysValues]:
        """What is computed of each."""
        in_use = {root: self._kept.pop(root, None) for root in dict.fromkeys(wanted)}
        missing = sorted((root for root, row in in_use.items() if row is None), key=len, reverse=True)
        too_many = sum(map(len, self._kept)) + sum(map(len, missing)) - self.tokens
        while self._kept and too_many > 0:
            oldest = next(iter(self._kept))
            too_many -= len(oldest)
            del self._kept[oldest]
        while missing:
            fit = max(1, self.tokens // len(missing[0]))
            in_use |= self._compute(missing[:fit])
            missing = missing[fit:]
        self._kept |= {root: row for root, row in in_use.items() if row is not None}  # of all there is one by now
        return [self._kept[root] for root in wanted]

    def _compute(self, roots: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], KeysValues]:
        ids, mask = left_padded(roots, self.causal.device)
        cache = DynamicCache()  # keeps what is beyond a sliding window too: shorter prefixes may need it
        if ids.shape[1] > 1:
            settings = GenerationConfig(max_new_tokens=1, do_sample=False, use_cache=True)
            self.causal.generate(ids, attention_mask=mask, past_key_values=cache, generation_config=settings)
        return dict(zip(roots, rows_of(cache, [len(root) for root in roots]), strict=True))


EngineName = Literal["auto", "plain", "cache", "continuous", "vllm"]
SERVED = {"continuous": ContinuousEngine, "vllm": VLLMEngine}  # they draw by random numbers of their own


def engine_of(name: EngineName, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int) -> Engine:
    """The engine of this name; ``auto`` is the cache engine if it can do with the model, else the plain one."""
    if name in SERVED:
        return SERVED[name](model, tokenizer, max_batch_tokens)
    if name == "plain":
        return PlainEngine(model, tokenizer, max_batch_tokens)
    try:
        return CacheEngine(model, tokenizer, max_batch_tokens)
    except UserError:
        if name == "cache":
            raise
        return PlainEngine(model, tokenizer, max_batch_tokens)


def _longest_first(roots: Sequence[tuple[int, ...]]) -> list[int]:
    """Their places by length, equal ones side by side."""
    first: dict[tuple[int, ...], int] = {}
    keys = [(-len(root), first.setdefault(root, len(first))) for root in roots]
    return sorted(range(len(roots)), key=keys.__getitem__)


def _keeps_all_tokens(causal: PreTrainedModel) -> bool:
    """Whether the model works with a `DynamicCache` of nothing but keys and values."""
    if causal._is_stateful or not causal._supports_default_dynamic_cache():
        return False
    kinds = {type(layer) for layer in DynamicCache(config=causal.config.get_text_config(decoder=True)).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


def _fitted(columns: Tensor, width: int, padding: int | None = None) -> Tensor:
    """The last columns [B, W]; where there are not so many, with padding on the left: by default the first again."""
    columns = columns[:, -width:]
    missing = (len(columns), width - columns.shape[1])
    left = columns[:, :1].expand(missing) if padding is None else columns.new_full(missing, padding)
    return torch.cat([left, columns], dim=1)


def _many_ended(enough: int, ends: Ends) -> list[StoppingCriteria]:
    return [_ManyEnded(enough, ends)]


class _ManyEnded(StoppingCriteria):
    """Stops a batch once so many of its rows have ended, to go on without them; called after `ends`."""

    def __init__(self, enough: int, ends: Ends):
        self.enough, self.ends = enough, ends

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        done = self.ends.done
        return (done.sum() >= self.enough).expand_as(done)  # stays where it is: an accelerator need not wait
