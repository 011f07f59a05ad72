"""Generation that computes every prefix once: its keys and values are kept, repeated over draws, and cut for steps.

The samples are those of `lm.generation.PlainEngine`. This file knows batches and caches. It does not know how a token
is chosen, nor where a continuation ends (lm/generation.py).

Legend: B rows, W width of a padded prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm.generation import Decoding, Draw, Engine, PlainEngine, Sample, left_padded
from lm.stopping import Ends
from text.errors import UserError

FEW = 4  # rows that end are carried along until there are so many: to leave them behind costs a forward's worth


class CacheEngine(Engine):
    """Batches of rows of like length whose prefixes are computed once.

    The draws of a prefix share its computation, and a prefix that begins another one (the steps of a solution) is part
    of that one's; only what does not fit into one batch is computed once per batch. Rows that ended leave a batch.

    Args:
        model: see Engine. Every layer keeps keys and values of its tokens: a recurrent one cannot be cut.
        tokenizer: see Engine.
        max_batch_tokens: see Engine.
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

    def _batches(self, draws: list[Draw], decoding: Decoding) -> list[list[int]]:
        """Numbers of draws by batch, the longest first; those that share a computation stay together if they fit."""
        roots, root_of = nested([draw.prefix for draw in draws])
        groups: list[list[int]] = [[] for _ in roots]
        for number, root in enumerate(root_of):
            groups[root].append(number)
        batches: list[list[int]] = []
        rows = 0  # that fit into the last batch
        for root in sorted(range(len(roots)), key=lambda root: -len(roots[root])):
            fit = max(1, self.max_batch_tokens // (len(roots[root]) + decoding.max_new_tokens))
            for start in range(0, len(groups[root]), fit):
                part = groups[root][start : start + fit]
                if not batches or len(batches[-1]) + len(part) > rows:
                    batches.append([])
                    rows = fit
                batches[-1] += part
        return batches

    def _continue(self, draws: list[Draw], decoding: Decoding) -> list[Sample]:
        """One batch through the model, piece by piece: after each, rows that ended are left behind."""
        ids, mask = left_padded([draw.prefix for draw in draws], self.causal.device)
        cache, width = self._prefilled(draws, ids.shape[1]), ids.shape[1]
        samples: dict[int, Sample] = {}
        still = list(range(len(draws)))
        while still:
            rows, ends = self._write(
                [draws[row] for row in still], decoding, ids, mask, width, _many_ended, past_key_values=cache
            )
            found = zip(still, self._samples(rows, ends), ends.done.tolist(), strict=True)
            samples |= {row: sample for row, sample, done in found if done}
            kept = (~ends.done).nonzero().flatten()
            still = [still[place] for place in kept.tolist()]
            mask = torch.nn.functional.pad(mask, (0, rows.shape[1] - mask.shape[1]), value=1)[kept]
            ids = rows[kept]
            cache.batch_select_indices(kept)
        return [samples[row] for row in range(len(draws))]

    def _prefilled(self, draws: Sequence[Draw], width: int) -> DynamicCache:
        """The cache of all tokens but the last of each draw's prefix, padded on the left to W - 1."""
        cache = DynamicCache()  # keeps what is beyond a sliding window too: shorter prefixes may need it
        if width == 1:
            return cache
        roots, root_of = nested([draw.prefix for draw in draws])
        ids, mask = left_padded(roots, self.causal.device)
        self.causal.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=GenerationConfig(max_new_tokens=1, do_sample=False, use_cache=True),
        )
        cache.crop(-1)  # the last token is the first that `generate` computes
        cache.batch_select_indices(torch.tensor(root_of, device=ids.device))
        longer = [len(roots[root]) - len(draw.prefix) for root, draw in zip(root_of, draws, strict=True)]
        if any(longer):
            _shift_right(cache, torch.tensor(longer, device=ids.device))
        return cache


EngineName = Literal["auto", "plain", "cache"]


def engine_of(name: EngineName, model: Any, tokenizer: PreTrainedTokenizerBase, max_batch_tokens: int) -> Engine:
    """The engine of this name; ``auto`` is the cache engine if it can do with the model, else the plain one."""
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


def _shift_right(cache: DynamicCache, by: Tensor) -> None:
    """Cuts so many tokens [B] off the end of each row; padding comes in from the left, and nobody sees it.

    Keys carry the position of their token, so that the place where they are kept does not matter.
    """
    columns = (torch.arange(cache.get_seq_length(), device=by.device) - by[:, None]).clamp(min=0)
    for layer in cache.layers:
        for name in ("keys", "values"):
            kept = getattr(layer, name)
            setattr(layer, name, kept.take_along_dim(columns[:, None, :, None], dim=2))


def _keeps_all_tokens(causal: PreTrainedModel) -> bool:
    """Whether the model works with a `DynamicCache` of nothing but keys and values."""
    if causal._is_stateful or not causal._supports_default_dynamic_cache():
        return False
    kinds = {type(layer) for layer in DynamicCache(config=causal.config.get_text_config(decoder=True)).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


def _many_ended(ends: Ends) -> list[StoppingCriteria]:
    return [_ManyEnded(ends)]


class _ManyEnded(StoppingCriteria):
    """Stops a batch once half of its rows have ended, to go on without them; called after `ends`."""

    def __init__(self, ends: Ends):
        self.ends = ends

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        done = self.ends.done
        return torch.full_like(done, bool(done.sum() >= max(FEW, len(done) / 2)))
