"""Conditions under which a wrong mask shows: float32, short windows, nothing random, and no trace afterwards.

In 16 bits rounding explains whole nats of a confident model, and no short text leaves a window of thousands of tokens.
This file knows modules and their configs. It does not know what is tried (lm/scoring/trial.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

WINDOW = 3  # tokens that layers with a sliding window look back: less than a path of the trial
SPARE = 2  # times the bytes that float32 weights take have to be free


@contextmanager
def undisturbed(causal: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """Evaluation without gradients or autocast; random numbers, weights and training flags are as before afterwards."""
    training = {module: module.training for module in causal.modules()}
    devices = [device] if device.type == "cuda" else []
    precision = torch.get_float32_matmul_precision()
    try:
        with ExitStack() as entered:
            entered.enter_context(torch.random.fork_rng(devices))
            entered.enter_context(torch.no_grad())
            entered.enter_context(torch.autocast(device.type, enabled=False))
            entered.enter_context(_in_float32(causal, device))
            entered.enter_context(_short_windows(causal))
            torch.set_float32_matmul_precision("highest")  # "high" keeps 10 bits of each factor
            causal.eval()
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        for module, flag in training.items():
            module.training = flag


@contextmanager
def _in_float32(causal: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """Weights of 16 bits are float32 meanwhile, exactly, unless they are sharded, quantised or too many."""
    tensors: list[Tensor] = [*causal.parameters(), *causal.buffers()]
    short = {id(tensor): tensor for tensor in tensors if tensor.dtype in (torch.bfloat16, torch.float16)}
    bytes_needed = SPARE * 4 * sum(tensor.numel() for tensor in short.values())
    fixed = any(isinstance(tensor, DTensor) for tensor in tensors) or any(
        not weight.is_floating_point() or weight.element_size() < 2 for weight in causal.parameters()
    )
    if not short or fixed or bytes_needed > free_bytes(device):
        yield
        return
    kept = [(tensor, tensor.data) for tensor in short.values()]
    try:
        for tensor, data in kept:
            tensor.data = data.float()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


@contextmanager
def _short_windows(causal: PreTrainedModel) -> Iterator[None]:
    """Layers with a sliding window look back WINDOW tokens meanwhile, and so do the masks that their model makes."""
    window = getattr(causal.config.get_text_config(), "sliding_window", None)
    configs = {id(config): config for module in causal.modules() if (config := getattr(module, "config", None))}
    text = causal.config.get_text_config()
    owners: list[Any] = [*(configs | {id(text): text}).values(), *causal.modules()]
    owners = [owner for owner in owners if window and vars(owner).get("sliding_window") == window > WINDOW]
    try:
        for owner in owners:
            owner.sliding_window = WINDOW
        yield
    finally:
        for owner in owners:
            owner.sliding_window = window


def free_bytes(device: torch.device) -> float:
    """Memory that is to be had; on a CPU whose system does not tell, 0."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    told = Path("/proc/meminfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return sum(1024 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
