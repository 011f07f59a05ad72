"""Large contrastive batches in little memory: encode in chunks, keep embeddings only, encode again for the gradients.

GradCache (arXiv 2101.06983) as one differentiable call: whatever is computed from the embeddings, gathering over ranks
included, needs to know nothing of it. Gradients are those of encoding everything at once, with dropout too. Knows
models and chunks, not losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lm.forests.batches import TextBatch
from lm.forests.length_batches import length_batches
from text.errors import UserError


def encode_cached(encode: Callable[[Any], Tensor], chunks: Sequence[Any], module: nn.Module) -> Tensor:
    """The embeddings of all chunks, [n, D]; activations live for one chunk at a time.

    Args:
        encode: embeds a chunk [b, D]; it may draw random numbers (dropout).
        chunks: what is embedded, in order.
        module: whose trainable parameters ``encode`` uses.

    Raises:
        UserError: if the parameters are sharded, which this cannot differentiate.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if any(isinstance(p, DTensor) for p in parameters):
        raise UserError("grad_cache_tokens: not with sharded parameters; use gradient_checkpointing there")
    if not torch.is_grad_enabled() or not parameters:
        return torch.cat([encode(chunk) for chunk in chunks])
    return _Cached.apply(encode, chunks, *parameters)


def encode_texts(
    embed: Callable[[TextBatch], Tensor], batches: Sequence[TextBatch], module: nn.Module, max_tokens: int | None
) -> list[Tensor]:
    """The vectors of several batches of texts.

    Args:
        embed: a batch to vectors [B, D].
        batches: of texts.
        module: whose trainable parameters ``embed`` uses.
        max_tokens: of a chunk, padding included; texts of like length share one. None encodes each batch at once.
    """
    if max_tokens is None:
        return [embed(batch) for batch in batches]
    chunks, places, first = [], [], 0
    for batch in batches:
        lengths = batch.attention_mask.sum(dim=1).cpu().numpy()
        for rows in length_batches(lengths, max_tokens):
            chunks.append(batch[torch.tensor(rows, device=batch.input_ids.device)])
            places += [first + row for row in rows]
        first += len(batch)
    vectors = encode_cached(embed, chunks, module)
    back = torch.tensor(places, device=vectors.device).argsort()
    return list(vectors[back].split([len(batch) for batch in batches]))


class _Cached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encode: Callable[[Any], Tensor], chunks: Sequence[Any], *parameters: Tensor) -> Tensor:
        ctx.encode, ctx.chunks, ctx.parameters = encode, chunks, parameters
        ctx.device_type = parameters[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device_type), torch.get_autocast_dtype(ctx.device_type)
        ctx.random, embeddings = [], []
        for chunk in chunks:
            ctx.random.append(_random_state(ctx.device_type))
            embeddings.append(encode(chunk))
        ctx.rows = [len(part) for part in embeddings]
        return torch.cat(embeddings)

    @staticmethod
    def backward(ctx: Any, gradient_nD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        total = [torch.zeros_like(p) for p in ctx.parameters]
        enabled, dtype = ctx.autocast
        devices = [torch.cuda.current_device()] if ctx.device_type == "cuda" else []
        for chunk, state, part in zip(ctx.chunks, ctx.random, gradient_nD.split(ctx.rows), strict=True):
            with torch.random.fork_rng(devices), torch.enable_grad(), torch.autocast(ctx.device_type, dtype, enabled):
                _set_random_state(state, ctx.device_type)
                embeddings = ctx.encode(chunk)
            # Not `backward`: the hooks of DDP must see each parameter once, with the gradient of all chunks.
            found = torch.autograd.grad(embeddings, ctx.parameters, part, allow_unused=True)
            for whole, new in zip(total, found, strict=True):
                if new is not None:
                    whole.add_(new)
        return None, None, *total


def _random_state(device_type: str) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if device_type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device_type: str) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
