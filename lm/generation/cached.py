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

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm.generation.batch import Batch
from lm.generation.engine import Engine, head_inputs
from lm.generation.plain import PlainEngine
from lm.generation.prefix_cache import PrefixCache, common
from lm.generation.rolling_cache import RollingCache
from lm.generation.rows import Row, Work, Written
from lm.generation.served import ContinuousEngine, VLLMEngine
from lm.generation.stopping import Ends
from text.errors import UserError

REFILL = 8  # one of so many rows may have ended before others take their place: to stop costs a forward's worth


class CacheEngine(Engine):
    """A batch whose rows are replaced as they end, and whose prefixes are computed once.

    Prefixes that begin alike share what they have in common, and draws of a root all of it. The longest come first,
    those that begin alike side by side; what is appended comes at once, for its beginning is at hand.

    Args:
        model: see Engine. Every layer keeps keys and values of its tokens: a recurrent one cannot be cut.
        tokenizer: see Engine.
        max_batch_tokens: see Engine; the batch has some columns more (`lm.generation.batch.ROOM`). Beside it are kept
            roots: those of the rows that were taken in last, as much again at most if roots are no longer than rows,
            and half as much of others; and rows that pause.
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

    def _run(self, work: Work) -> Iterator[list[Written]]:
        """The rows of a batch, which others replace as they end; see Engine."""
        prefixes = PrefixCache(self._read_into, self.max_batch_tokens // 2, self.causal.device)
        batch = Batch(self.causal.device)
        waiting = deque(_in_order([(self._root(row), row) for row in work.new()]))
        weights = self._weights()
        while waiting or batch.live:
            if self._weights() != weights:  # what is kept was computed with the old ones
                raise UserError("the weights changed between two samples: use engine: plain, or ask anew")
            computed = prefixes.computed
            taken, columns = self._next(batch.live, waiting)
            prefixes.expect(self._soon(waiting))
            batch.fill([*zip(taken, prefixes.take([*map(self._root, taken)]), strict=True)], columns)
            enough = max(1, len(batch.live) // REFILL)
            written, ends = self._write(
                work,
                batch.live,
                batch.ids,
                batch.mask,
                batch.width,
                batch.cache.room,
                partial(_many_ended, enough),
                past_key_values=batch.cache,
            )
            found = self._ended(batch.live, written, ends)
            found |= self._paused(prefixes, batch, {n: one for n, one in found.items() if one.sample is None})
            self.prefilled += prefixes.computed - computed
            batch.take(written, found)
            yield [*found.values()]
            new = work.new()
            if any(not row.written for row in new):
                self._keep_ended(prefixes, batch, {n: one.row for n, one in found.items() if one.sample is not None})
            waiting.extendleft(reversed(new))

    def _next(self, live: Sequence[Row], waiting: deque[Row]) -> tuple[list[Row], int]:
        """Who is taken in beside those that live: as many as have room, each as long as the longest of them can be.

        So a long prefix makes room for many short ones once it has ended.

        Returns: them, and the columns that rows can fill.
        """
        taken: list[Row] = []
        columns = max((row.most for row in live), default=0)
        while waiting:
            wider = max(columns, waiting[0].most)
            count = len(live) + len(taken)
            if count and (count + 1) * wider > self.max_batch_tokens:
                break
            columns = wider
            taken.append(waiting.popleft())
        return taken, columns

    def _soon(self, waiting: Sequence[Row]) -> list[tuple[int, ...]]:
        """Roots of those that are taken in next, in their order, about as many tokens as a batch has."""
        roots, room = list[tuple[int, ...]](), self.max_batch_tokens
        for row in waiting:
            roots.append(self._root(row))
            room -= len(roots[-1])
            if room <= 0:
                break
        return roots

    def _keep_ended(self, prefixes: PrefixCache, batch: Batch, ended: dict[int, Row]) -> None:
        """What was appended may begin as rows that have just ended: their prompts are kept, if they were forgotten."""
        room = prefixes.tokens
        for prompt, number in {tuple(row.draw.prefix): number for number, row in ended.items()}.items():
            room -= len(prompt)
            if room >= 0:
                prefixes.keep(prompt, partial(batch.part, number, int(batch.width[number]) - len(prompt)))

    def _paused(self, prefixes: PrefixCache, batch: Batch, paused: dict[int, Written]) -> dict[int, Written]:
        """With the state at the last token of each row; what was computed of them is kept for when they go on."""
        if not paused:
            return {}
        for number, one in paused.items():
            begin = int(batch.width[number]) - len(one.row.draw.prefix)
            prefixes.keep(one.row.tokens[:-1], partial(batch.part, number, begin))
        different = [*dict.fromkeys(one.row.tokens for one in paused.values())]
        with head_inputs(self.causal) as states:
            prefixes.read_last(different)
        state = dict(zip(different, states[-1], strict=True))
        return {number: one._replace(state=state[one.row.tokens]) for number, one in paused.items()}

    def _read_into(self, ids: Tensor, mask: Tensor, cache: RollingCache) -> None:
        self._read(ids, mask, past_key_values=cache)

    def _weights(self) -> list[int]:
        """Changes when they do; weights that were made in inference mode (a judge's, in a test) have no counter."""
        return [weight._version for weight in self.model.parameters() if not weight.is_inference()]

    def _root(self, row: Row) -> tuple[int, ...]:
        """What is computed for a row: as much of its root as the context has room for, or all tokens that it has."""
        root = row.tokens if row.written or row.draw.root is None else tuple(row.draw.root)
        return root[: int(min(self.context, len(root)))]


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


def _in_order(rows: Sequence[tuple[tuple[int, ...], Row]]) -> list[Row]:
    """Rows, each with its root: those that have half of it in common side by side, the longest first.

    The same holds for what comes behind the tokens that a group has in common.
    """
    ordered: list[Row] = []
    groups = [(sorted(rows, key=lambda pair: pair[0]), 0)]  # what begins alike is side by side
    while groups:
        group, begin = groups.pop()
        parts = _alike(group, begin)
        behind = [common(part[0][0], part[-1][0], begin) for part in parts]
        if len(parts) > 1 or behind > [begin]:
            longest_last = sorted(zip(parts[::-1], behind[::-1], strict=True), key=_longest)
            groups += longest_last
        else:
            ordered += [row for _, row in sorted(group, key=lambda pair: -len(pair[0]))]
    return ordered


def _alike(group: Sequence[tuple[tuple[int, ...], Row]], begin: int) -> list[list[tuple[tuple[int, ...], Row]]]:
    """Cuts sorted rows where less than half of what comes behind their first tokens is as before."""
    parts: list[list[tuple[tuple[int, ...], Row]]] = []
    for root, row in group:
        if not parts or 2 * (common(parts[-1][-1][0], root, begin) - begin) < len(root) - begin:
            parts.append([])
        parts[-1].append((root, row))
    return parts


def _longest(part: tuple[Sequence[tuple[tuple[int, ...], Row]], int]) -> int:
    return max(len(root) for root, _ in part[0])


def _keeps_all_tokens(causal: PreTrainedModel) -> bool:
    """Whether the model works with a `DynamicCache` of nothing but keys and values."""
    if causal._is_stateful or not causal._supports_default_dynamic_cache():
        return False
    kinds = {type(layer) for layer in DynamicCache(config=causal.config.get_text_config(decoder=True)).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


def _many_ended(enough: int, ends: Ends) -> list[StoppingCriteria]:
    return [_ManyEnded(enough, ends)]


class _ManyEnded(StoppingCriteria):
    """Stops a batch once so many of its rows have ended, to go on without them; called after `ends`."""

    def __init__(self, enough: int, ends: Ends):
        self.enough, self.ends = enough, ends

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        done = self.ends.done
        return (done.sum() >= self.enough).expand_as(done)  # stays where it is: an accelerator need not wait
