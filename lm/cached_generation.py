"""Generation that computes every prefix once: its keys and values are kept, repeated over draws, and cut for steps.

The samples are those of `lm.generation.PlainEngine`. This file knows draws, and which of them are written at a time. It
does not know how a token is chosen, where a continuation ends (lm/generation.py), nor how keys and values are kept
(lm/rolling_cache.py).

Legend: B rows, W columns of a batch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm.generation import Decoding, Draw, Engine, PlainEngine, Sample, left_padded
from lm.rolling_cache import KeysValues, RollingCache, rows_of
from lm.served_generation import ContinuousEngine, VLLMEngine
from lm.stopping import Ends
from text.errors import UserError

FEW = 4  # rows that end are carried along until there are so many: to leave them behind costs a forward's worth
REFILL = 8  # while draws wait, one of so many rows may have ended before others take their place
ROOM = 64  # columns of the cache beyond what rows can fill: the more, the seldomer it is moved


class CacheEngine(Engine):
    """A batch whose rows are replaced as they end, and whose prefixes are computed once.

    The draws of a prefix share its computation, and a prefix that begins another one (the steps of a solution) is part
    of that one's. The longest come first.

    Args:
        model: see Engine. Every layer keeps keys and values of its tokens: a recurrent one cannot be cut.
        tokenizer: see Engine.
        max_batch_tokens: see Engine; prefixes that are computed ahead take a quarter more.
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

    def _run(self, draws: list[Draw], decoding: Decoding) -> Iterator[tuple[int, Sample]]:
        """The rows of a batch, which others replace as they end; see Engine."""
        if not draws:
            return
        prefixes = _Prefixes(self.causal, [draw.prefix for draw in draws], self.max_batch_tokens // 4)
        waiting = deque(prefixes.order)
        columns = prefixes.longest + decoding.max_new_tokens
        rows = _Rows(min(len(draws), max(1, self.max_batch_tokens // columns)), columns + ROOM, self.causal.device)
        while waiting or rows.live:
            taken = [waiting.popleft() for _ in range(min(len(waiting), len(rows.free)))]
            rows.fill([(number, draws[number].prefix, prefixes.take(number)) for number in taken])
            enough = max(1, len(rows.numbers) // REFILL) if waiting else max(FEW, len(rows.numbers) // 2)
            written, ends = self._write(
                [draws[number] for number in rows.live],
                decoding,
                rows.ids,
                rows.mask,
                rows.width,
                rows.cache.room,
                partial(_many_ended, enough),
                past_key_values=rows.cache,
            )
            samples = self._samples(written, ends)
            yield from rows.take(written, samples, ends.done.tolist())


class _Rows:
    """The rows that are written at the moment.

    Args:
        slots: the most rows B.
        columns: of the cache.
        device: of the model.

    Attributes:
        numbers: of the draws that are in the slots; None where one has ended.
        ids: padding, prefixes and what was written, [B, W].
        mask: 0 where `ids` are padding, like `ids`.
        width: columns of each row before its continuation [B].
        cache: of all columns but the last.
    """

    def __init__(self, slots: int, columns: int, device: torch.device):
        self.numbers: list[int | None] = [None] * slots
        self.ids = self.mask = torch.zeros(slots, 1, dtype=torch.long, device=device)
        self.width = torch.zeros(slots, dtype=torch.long, device=device)
        self.cache = RollingCache(slots, columns)

    @property
    def live(self) -> list[int]:
        """Numbers of the draws whose rows go on."""
        return [number for number in self.numbers if number is not None]

    @property
    def free(self) -> list[int]:
        """Slots whose rows have ended."""
        return [slot for slot, number in enumerate(self.numbers) if number is None]

    def fill(self, taken: Sequence[tuple[int, Sequence[int], KeysValues]]) -> None:
        """Put draws with their prefixes, and what was computed of these, into free slots.

        Slots that stay free are left behind, and so are columns that are padding in all rows.
        """
        slots = self.free[: len(taken)]
        kept = [slot for slot, number in enumerate(self.numbers) if number is not None]
        lengths = [len(prefix) for _, prefix, _ in taken]
        columns = max([*lengths, *self.mask[kept].sum(dim=1).tolist()])
        self._cut(columns)
        self.cache.begin(columns - 1, taken[0][2] if taken else [])
        if taken:
            ids, mask = left_padded([prefix for _, prefix, _ in taken], self.ids.device)
            self.ids[slots], self.mask[slots] = _fitted(ids, columns), _fitted(mask, columns, 0)
            self.width[slots] = columns
        for slot, (number, prefix, computed) in zip(slots, taken, strict=True):
            self.numbers[slot] = number
            self.cache.place(slot, computed, len(prefix) - 1)
        if self.free:
            self._keep(sorted(kept + slots))
        if self.cache.room < ROOM:
            self.cache.make_room()

    def take(self, written: Tensor, samples: Sequence[Sample], done: Sequence[bool]) -> Iterator[tuple[int, Sample]]:
        """What was written of the rows; those that are done come out with their number, and free their slots."""
        self.mask = F.pad(self.mask, (0, written.shape[1] - self.mask.shape[1]), value=1)
        self.ids = written
        for slot, (sample, ended) in enumerate(zip(samples, done, strict=True)):
            if ended:
                number, self.numbers[slot] = self.numbers[slot], None
                assert number is not None
                yield number, sample

    def _cut(self, columns: int) -> None:
        """Leave so many columns on the right."""
        self.width += columns - self.ids.shape[1]
        self.ids, self.mask = _fitted(self.ids, columns), _fitted(self.mask, columns, 0)

    def _keep(self, slots: list[int]) -> None:
        """Leave other slots behind."""
        self.numbers = [self.numbers[slot] for slot in slots]
        self.ids, self.mask, self.width = self.ids[slots], self.mask[slots], self.width[slots]
        self.cache.keep(torch.tensor(slots, device=self.ids.device))


class _Prefixes:
    """What is computed of prefixes: some at a time, in order, each once; let go when it was taken for the last time.

    Args:
        causal: the model.
        prefixes: of the draws.
        tokens: that are computed at a time.

    Attributes:
        order: numbers of the draws, those with the longest prefixes first, those that share a computation together.
    """

    def __init__(self, causal: PreTrainedModel, prefixes: Sequence[Sequence[int]], tokens: int):
        self.causal, self.tokens = causal, tokens
        self.roots, self.root_of = nested(prefixes)
        ranks = sorted(range(len(self.roots)), key=lambda root: -len(self.roots[root]))
        place = {root: place for place, root in enumerate(ranks)}
        self.order = sorted(range(len(prefixes)), key=lambda number: place[self.root_of[number]])
        self.longest = len(self.roots[ranks[0]])
        self._left, self._uses = deque(ranks), Counter(self.root_of)
        self._computed: dict[int, KeysValues] = {}

    def take(self, number: int) -> KeysValues:
        """The keys and values of a draw's prefix, and of what else comes after it."""
        root = self.root_of[number]
        if root not in self._computed:
            self._compute()
        self._uses[root] -= 1
        return self._computed[root] if self._uses[root] else self._computed.pop(root)

    def _compute(self) -> None:
        fit = max(1, self.tokens // len(self.roots[self._left[0]]))
        ranks = [self._left.popleft() for _ in range(min(fit, len(self._left)))]
        roots = [self.roots[root] for root in ranks]
        ids, mask = left_padded(roots, self.causal.device)
        cache = DynamicCache()  # keeps what is beyond a sliding window too: shorter prefixes may need it
        if ids.shape[1] > 1:
            settings = GenerationConfig(max_new_tokens=1, do_sample=False, use_cache=True)
            self.causal.generate(ids, attention_mask=mask, past_key_values=cache, generation_config=settings)
        self._computed |= zip(ranks, rows_of(cache, [len(root) for root in roots]), strict=True)


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


def nested(prefixes: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Which prefixes are beginnings of others.

    Args:
        prefixes: tokens.

    Returns: the distinct ones that begin no other one, and for each prefix the number of one that it begins or is.
    """
    roots: list[tuple[int, ...]] = []
    number_of: dict[tuple[int, ...], int] = {}
    # In descending order a prefix follows directly upon those that it begins.
    for prefix in sorted({tuple(prefix) for prefix in prefixes}, reverse=True):
        if not roots or roots[-1][: len(prefix)] != prefix:
            roots.append(prefix)
        number_of[prefix] = len(roots) - 1
    return roots, [number_of[tuple(prefix)] for prefix in prefixes]


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
        return torch.full_like(done, bool(done.sum() >= self.enough))
