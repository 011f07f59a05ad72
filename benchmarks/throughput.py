"""A whole training step on a GPU: tokens per second, share of the chip's arithmetic, peak memory.

Used by the scripts beside it; it knows a model, a forest and a loss, and not what is compared with what.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm.forests.forest import Forest

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bfloat16, from the data sheets


def throughput(model: PreTrainedModel, forest: Forest, loss: Callable[[], Tensor], repeats: int) -> str:
    """Times forward, backward and AdamW; one line of results."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    for _ in range(3):  # compilation, optimizer state
        step()
    torch.cuda.reset_peak_memory_stats()
    times = [step() for _ in range(repeats)]
    seconds, chip = statistics.median(times), torch.cuda.get_device_name()
    achieved = step_flops(model, forest) / seconds
    peak = next((rate for known, rate in PEAK_FLOPS.items() if known in chip), None)
    share = f"{achieved / peak:.1%} of the peak of {chip}" if peak else f"on {chip}, peak unknown"
    return (
        f"{1e3 * seconds:.0f} ms a step ({1e3 * min(times):.0f}-{1e3 * max(times):.0f}), "
        f"{len(forest.input_ids) / seconds:,.0f} tokens/s, {achieved / 1e12:.0f} TFLOP/s, {share}, "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most"
    )


def step_flops(model: PreTrainedModel, forest: Forest) -> float:
    """Arithmetic that the forest needs, recomputation not counted; the backward pass costs twice the forward."""
    head = model.get_output_embeddings().weight.numel()
    embeddings = {id(p): p.numel() for p in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    body = sum(p.numel() for p in model.parameters()) - sum(embeddings.values())
    states, seen = len(forest.host.sources.unique()), int((forest.host.position_ids + 1).sum())
    attention = 4 * seen * model.config.hidden_size * model.config.num_hidden_layers  # as wide as the model: Llama's
    return 3.0 * (2 * body * len(forest.input_ids) + 2 * head * states + attention)
