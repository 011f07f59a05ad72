"""What a run will cost, said before it costs anything: parameters, bytes, tokens, and soon after the time it takes.

It knows the trainer, parameters and the size of a batch. It does not know what a method computes: the bytes of
activations are an estimate for a decoder of the Hugging Face kind (`activation_bytes`).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch.optim import Optimizer

from lm.batches import TokenRows
from lm.forest import Forest


class Cost(Callback):
    """One table when training starts; one line with the measured speed and the time left a few steps later.

    Args:
        measured_steps: optimizer steps to time, after a first one that warms up.
    """

    def __init__(self, measured_steps: int = 5):
        self.measured_steps = measured_steps
        self.started: tuple[int, float] | None = None
        self.shown = self.measured = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Prints the table, once a first batch tells how many tokens there are."""
        if self.shown:
            return
        self.shown = True
        self.tokens_per_step = batch_tokens(batch) * trainer.accumulate_grad_batches * trainer.world_size
        if trainer.is_global_zero:
            Console().print(cost_table(self.rows(trainer, pl_module, batch)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Times a few steps, then prints the speed and what it means for the rest."""
        if self.measured or trainer.fit_loop._should_accumulate():
            return
        if self.started is None:
            self.started = (trainer.global_step, time.perf_counter())
        elif trainer.global_step - self.started[0] >= self.measured_steps:
            self.measured = True
            seconds = (time.perf_counter() - self.started[1]) / (trainer.global_step - self.started[0])
            left = (trainer.estimated_stepping_batches - trainer.global_step) * seconds
            text = (
                f"{self.tokens_per_step / seconds:,.0f} tokens/s, {seconds:.3g} s a step: "
                f"about {duration(left)} to go, validation and callbacks aside"
            )
            if trainer.is_global_zero:
                print(text, flush=True)

    def rows(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> list[tuple[str, str]]:
        """The lines of the table."""
        parameters = list(pl_module.parameters())
        trainable = [p for p in parameters if p.requires_grad]
        total, trained = (sum(p.numel() for p in group) for group in (parameters, trainable))
        optimizer = optimizer_bytes(trainer.optimizers[0], trainable) if trainer.optimizers else None
        activations = activation_bytes(pl_module, batch_tokens(batch), trainer.precision)
        weights, gradients = local_bytes(parameters), local_bytes(trainable)
        known = [size for size in (weights, gradients, optimizer, activations) if size is not None]
        batches = trainer.num_training_batches
        epoch = batches * batch_tokens(batch) * trainer.world_size if batches != float("inf") else None
        steps = trainer.estimated_stepping_batches
        return [
            ("parameters", f"{total:,} ({trained / max(total, 1):.2%} trained)"),
            ("weights", size_text(weights)),
            ("gradients", size_text(gradients)),
            ("optimizer state", size_text(optimizer)),
            (f"activations, {batch_tokens(batch):,} tokens", size_text(activations, "about ")),
            ("together, per device", size_text(sum(known), "about ")),
            ("tokens per step", f"{self.tokens_per_step:,}"),
            ("tokens per epoch", "unknown" if epoch is None else f"{epoch:,}"),
            ("steps", "until stopped" if steps in (float("inf"), -1) else f"{steps:,} ({trainer.global_step:,} done)"),
            ("runs on", runs_on(trainer)),
        ]


def batch_tokens(batch: Any) -> int:
    """Tokens that a forward pass over the batch computes; 0 for a batch without tokens."""
    batch = getattr(batch, "forest", batch)
    return batch.input_ids.numel() if isinstance(batch, TokenRows | Forest) else 0


def local_bytes(parameters: list[torch.nn.Parameter]) -> int:
    """Bytes on this device: a sharded parameter counts its own shard."""
    local = [p.to_local() if hasattr(p, "to_local") else p for p in parameters]
    return sum(p.numel() * p.element_size() for p in local)


def optimizer_bytes(optimizer: Optimizer, trainable: list[torch.nn.Parameter]) -> int | None:
    """Bytes of the state that the optimizer will keep; None for an optimizer of unknown kind."""
    name, defaults = type(getattr(optimizer, "optimizer", optimizer)).__name__, optimizer.defaults
    if "betas" in defaults:
        moments = 1 if "lion" in name.lower() else 3 if defaults.get("amsgrad") else 2
    elif "momentum" in defaults:
        moments = 1 if defaults["momentum"] else 0
    else:
        return None
    sizes = local_bytes(trainable)
    return moments * (sum(p.numel() for p in trainable) if "8bit" in name else sizes)


def activation_bytes(module: torch.nn.Module, tokens: int, precision: str) -> int | None:
    """Bytes kept between forward and backward by a decoder with fused attention; None if it is not of that kind.

    Per token and layer: 8 vectors of the hidden size around attention and norms, twice the key and value width, 4
    vectors of the feed-forward size; with gradient checkpointing one hidden vector per layer and one layer in full.
    Logits are not counted: the head works in chunks.
    """
    configs = (getattr(part, "config", None) for part in module.modules())
    config = next((config for config in configs if hasattr(config, "num_hidden_layers")), None)
    if config is None or not tokens:
        return None
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    kv = 2 * hidden * (getattr(config, "num_key_value_heads", None) or heads) // heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = 8 * hidden + kv + 4 * inner
    checkpointed = any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
    half = "16" in str(precision) or any(p.dtype in (torch.bfloat16, torch.float16) for p in module.parameters())
    values = layers * hidden + layer if checkpointed else layers * layer
    return tokens * values * (2 if half else 4)


def runs_on(trainer: Trainer) -> str:
    """Devices, strategy and precision in a few words."""
    device = trainer.strategy.root_device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
    return f"{trainer.world_size} x {kind}{threads}, {type(trainer.strategy).__name__}, precision {trainer.precision}"


def size_text(size: float | None, prefix: str = "") -> str:
    """Bytes in the unit people use."""
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{prefix}{size:.3g} {unit}"
        size /= 1000
    return f"{prefix}{size:,.3g} TB"


def duration(seconds: float) -> str:
    """Seconds in the unit people use."""
    if seconds == float("inf"):
        return "an unlimited time"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def cost_table(rows: list[tuple[str, str]]) -> Table:
    """The terminal's form."""
    table = Table(title="What this run will cost", show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    return table
