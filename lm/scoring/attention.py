"""The attention implementation "forest": every query sees its ancestors, and nothing else.

Registered with transformers under one name that serves three kinds of call: spans of a forest through SDPA (CPU), a
FlexAttention block mask (CUDA), and everything else (plain rows, padding masks, generation), where it is SDPA as
transformers runs it. So a model may keep it for good. This file does not know what is scored (lm/scoring/logprobs.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lm.forests.forest import FLEX_BLOCK, Forest
from lm.scoring.spans import SpanPlan, kept_with, plan_spans, span_masks
from text.errors import UserError

FLEX_VARIANTS = 64  # torch's own limit of 8 is two models with two kinds of layers, with gradients and without
WINDOWED = {"full_attention": False, "sliding_attention": True}


def windows_of(config: PreTrainedConfig) -> dict[str, int | None]:
    """The sliding window of each kind of layer; None is full attention.

    Raises:
        UserError: a kind of layer whose rule of sight is not known, such as a linear or a chunked one.
    """
    window = getattr(config, "sliding_window", None)
    kinds = dict.fromkeys(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if unknown := [kind for kind in kinds if kind not in WINDOWED]:
        raise UserError(f"layers of type {', '.join(unknown)} cannot take a tree mask")
    return {kind: window if WINDOWED[kind] else None for kind in kinds}


def tree_inputs(model: PreTrainedModel, forest: Forest) -> dict[str, Any]:
    """Keyword arguments of `model` for one row that holds the whole forest.

    Args:
        model: a causal language model, not wrapped. From here on its attention implementation is "forest".
        forest: on the device of the computation; not empty.

    Raises:
        UserError: the model cannot take a tree mask.
    """
    use_forest_attention(model)
    windows = windows_of(model.config.get_text_config())
    in_blocks = forest.input_ids.is_cuda and model.dtype != torch.float64
    key = in_blocks, *windows.items()
    return dict(kept_with(forest, key, lambda: _row_of_trees(forest, windows, in_blocks)))


def _row_of_trees(forest: Forest, windows: dict[str, int | None], in_blocks: bool) -> dict[str, Any]:
    """What `tree_inputs` gives, for layers of these kinds, with masks for FlexAttention (`in_blocks`) or spans."""
    masks: dict[str, Tensor | BlockMask]
    if in_blocks:
        forest = forest.padded(FLEX_BLOCK)  # few distinct lengths, so few compiled kernels
        extra: dict[str, SpanPlan] = {}
        masks = {kind: forest.block_mask(window) for kind, window in windows.items()}
    else:
        plan = plan_spans(forest, windows.values())
        extra = {"span_plan": plan}
        masks = {kind: span_masks(forest, plan, window) for kind, window in windows.items()}
    return {
        "input_ids": forest.input_ids[None],
        "position_ids": forest.position_ids[None],
        # One mask would reach every layer, so that layers of several kinds take theirs by name.
        "attention_mask": masks if len(masks) > 1 else next(iter(masks.values())),
        **extra,
    }


def use_forest_attention(model: PreTrainedModel) -> None:
    """Switches `model` to the attention of this file, for good: recomputation in backward must find it too.

    Raises:
        UserError: the model's attention is not exchangeable.
    """
    if model.config._attn_implementation != "forest":
        if not model._can_set_attn_implementation():
            raise UserError(f"{type(model).__name__} does not let its attention be exchanged")
        model.set_attn_implementation("forest")


def forest_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    span_plan: SpanPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function in the sense of transformers' AttentionInterface.

    Queries, keys and values are [B, heads, T, head dim]; fewer heads of keys and values are shared among the queries.
    `attention_mask` is of `span_masks` if there is a `span_plan`, else a block mask, or what `sdpa_mask` makes of a
    padding mask. With `softcap` scores s become ``softcap * tanh(s / softcap)`` (Gemma 2).

    Returns: [B, T, heads, head dim], and no weights.
    """
    scores = _Scores(scaling or query.shape[-1] ** -0.5, dropout, softcap)
    if span_plan is not None:
        output = _attend_spans(module, scores, query, key, value, attention_mask, span_plan, kwargs)
    elif isinstance(attention_mask, BlockMask):
        _check_scores(module, kwargs)
        output = _flex(scores, query, key, value, attention_mask)
    elif softcap is not None:
        causal = attention_mask is None and query.shape[2] > 1
        output = _attend(scores, query, key, value, attention_mask, causal)
    else:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    return output.transpose(1, 2).contiguous(), None


class _Scores(NamedTuple):
    """What becomes of the products of queries and keys."""

    scaling: float
    dropout: float
    softcap: float | None


def _check_scores(module: nn.Module, kwargs: dict[str, Any]) -> None:
    """Refuses a layer whose scores are more than products of queries and keys: the rest would be dropped silently."""
    for extra in ("s_aux", "position_bias"):
        if kwargs.get(extra) is not None:
            raise UserError(f"{type(module).__name__} adds {extra} to its scores, which forests do not know")


@torch.compiler.disable  # every forest has another plan: a compiled layer would be compiled anew for each
def _attend_spans(
    module: nn.Module,
    scores: _Scores,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masks: Tensor | BlockMask | None,
    plan: SpanPlan,
    kwargs: dict[str, Any],
) -> Tensor:
    """Span by span. `split` rather than slices: its gradient is one concatenation."""
    name = type(module).__name__
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool or masks.shape != (1, 1, 1, plan.mask_size()):
        raise UserError(f"{name} does not see the mask of the forest, but one that its model made")
    if (window := kwargs.get("sliding_window")) not in (None, *plan.windows):
        raise UserError(f"{name} looks back {window} tokens, but its mask was made for {plan.windows}")
    _check_scores(module, kwargs)
    lengths = [span.stop - span.start for span in plan.spans]
    queries, keys, values = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    output, taken = [], 0
    for index, (q_len, k_len) in enumerate(plan.shapes()):
        seen, mask = plan.keys(index), None
        k, v = (part[index] if len(seen) == 1 else torch.cat([part[j] for j in seen], dim=2) for part in (keys, values))
        if not plan.causal[index]:
            mask = masks[..., taken : taken + q_len * k_len].view(1, 1, q_len, k_len)
            taken += q_len * k_len
        output.append(_attend(scores, queries[index], k, v, mask, plan.causal[index]))
    return torch.cat(output, dim=2)


def _attend(scores: _Scores, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention of all queries to all keys that the mask (True: see) or causality allows."""
    scaling, dropout, softcap = scores
    if softcap is None:
        shared = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, mask, dropout, causal, scale=scaling, enable_gqa=shared
        )
    if causal:  # keys beyond the queries are the empty slots of a static cache
        key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
        mask = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool, device=query.device).tril()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    products = softcap * torch.tanh(query @ key.transpose(2, 3) * scaling / softcap)
    if mask is not None:
        products = products.masked_fill(~mask, torch.finfo(products.dtype).min)
    weights = products.softmax(-1, dtype=torch.promote_types(products.dtype, torch.float32)).to(query.dtype)
    return F.dropout(weights, dropout) @ value


def _flex(scores: _Scores, query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    """FlexAttention over one long row; blocks that no query of the tree sees are never touched."""
    scaling, dropout, softcap = scores
    if dropout:
        raise UserError(
            f"attention dropout of {dropout} cannot run on forests on a GPU: FlexAttention has none. "
            "Set the dropout of the attention to 0 in the backbone's config."
        )
    capped = None
    if softcap is not None:

        def capped(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return softcap * torch.tanh(score / softcap)

    flex: Any = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    return flex(query, key, value, capped, mask, scaling, query.shape[1] != key.shape[1])


@functools.cache
def _compiled_flex() -> Callable:
    """Compiled once per process; uncompiled, FlexAttention would hold all scores.

    Every kind of layer, precision and mode of gradients is a variant of it, lengths are not. Beyond FLEX_VARIANTS torch
    raises FailOnRecompileLimitHit: without ``fullgraph`` it would go on uncompiled, with one line in a log.
    """
    options: dict[str, Any] = {"fullgraph": True, "dynamic": True, "recompile_limit": FLEX_VARIANTS}
    return torch.compile(flex_attention, **options)


AttentionInterface.register("forest", forest_attention)
AttentionMaskInterface.register("forest", sdpa_mask)  # without it a padding mask would arrive as None, silently
