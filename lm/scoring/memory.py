"""Memory that training takes: bytes of activations of a decoder, and how many tokens a device computes well at once.

Knows parameters, configurations of the Hugging Face kind, and devices. It does not know batches, nor what is computed.
"""

from __future__ import annotations

from typing import Any

import torch

from lm.scoring.states import LOGITS_AT_ONCE, MIN_CHUNK

AT_ONCE = 256 << 20
"""Bytes of activations at once on a CPU: larger products are no faster there, and only take memory."""
SHARE = 0.6
"""Of the free memory of a GPU; the rest is for what nobody estimates: buffers of kernels, fragments, other losses."""
MOST_TOKENS = 1 << 20
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""What the configuration of every decoder with attention tells."""


def local_bytes(parameters: list[torch.nn.Parameter]) -> int:
    """Bytes on this device: a sharded parameter counts its own shard."""
    local = [p.to_local() if hasattr(p, "to_local") else p for p in parameters]
    return sum(p.numel() * p.element_size() for p in local)


def activation_bytes(module: torch.nn.Module, tokens: int, precision: str) -> int | None:
    """Bytes kept between forward and backward by a decoder with fused attention; None if it is not of that kind.

    Per token and layer: 10 vectors of the hidden size around attention and norms, keys and values, 4 vectors of the
    feed-forward size; in 16 bits the norms keep one more vector, in float32. With gradient checkpointing one hidden
    vector per layer and one layer in full. Beside the layers: one chunk of logits, and under autocast the
    weights in 16 bits.
    """
    configs = (getattr(part, "config", None) for part in module.modules())
    config = next((config for config in configs if hasattr(config, "num_hidden_layers")), None)
    sizes: list[Any] = [getattr(config, name, None) for name in SIZES]
    inner = getattr(config, "intermediate_size", None) or 0
    if not tokens or not all(isinstance(size, int) for size in (*sizes, inner)):  # a list has one for each layer
        return None
    hidden, layers, heads, vocabulary = sizes
    kv = 2 * hidden * (getattr(config, "num_key_value_heads", None) or heads) // heads
    checkpointed = any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
    half = "16" in str(precision) or any(p.dtype in (torch.bfloat16, torch.float16) for p in module.parameters())
    width = 2 if half else 4
    layer = (10 * hidden + kv + 4 * (inner or 4 * hidden)) * width + (4 * hidden if half else 0)
    values = layers * hidden * width + layer if checkpointed else layers * layer
    logits = min(tokens, max(MIN_CHUNK, LOGITS_AT_ONCE // vocabulary)) * vocabulary * width
    cast = 2 * sum(p.numel() for p in module.parameters() if p.ndim > 1) if "mixed" in str(precision) else 0
    return tokens * values + logits + (0 if checkpointed else cast)


def token_budget(module: torch.nn.Module, device: torch.device, precision: str) -> int | None:
    """How many tokens a micro-batch may compute, before training: None for a model whose activations nobody knows.

    Args:
        module: the models, on their device; their gradients and two moments of each are still to come.
        device: where it is trained.
        precision: the trainer's.
    """
    if activation_bytes(module, 1, precision) is None:
        return None
    room = AT_ONCE
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        coming = 3 * local_bytes([p for p in module.parameters() if p.requires_grad])
        room = int(SHARE * (torch.cuda.mem_get_info(device)[0] + held - coming))
    fits, beyond = 1, MOST_TOKENS
    while beyond - fits > 1:
        tokens = (fits + beyond) // 2
        if (activation_bytes(module, tokens, precision) or 0) <= room:
            fits = tokens
        else:
            beyond = tokens
    return fits
