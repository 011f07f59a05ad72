"""What a run will cost, said before it costs anything: parameters, bytes, tokens, and soon after the time it takes.

It knows the trainer, parameters and the size of a batch. It does not know what a method computes: the bytes of
activations are an estimate (lm/scoring/memory.py). The peak that was measured is
told with the speed.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch.optim import Optimizer

from lm.backbones.adapters import is_adapted
from lm.forests.batches import TokenRows
from lm.forests.forest import Forest
from lm.scoring.memory import activation_bytes, local_bytes
from lm.steps.lightning_private import ends_a_step

HOLES = 1.5
"""On a CPU with adapters, glibc holds this many times the bytes that activations take: the sums of adapters and frozen
layers are freed between what is kept, and the holes stay. Measured with SmolLM2-135M: 1.4 after two steps, 1.6 after
eight; less in a process that had much memory to give before, up to 2.2 on another machine."""


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
        if self.measured or not ends_a_step(trainer):
            return
        if self.started is None:
            self.started = (trainer.global_step, time.perf_counter())
        elif trainer.global_step - self.started[0] >= self.measured_steps:
            self.measured = True
            seconds = (time.perf_counter() - self.started[1]) / (trainer.global_step - self.started[0])
            left = (trainer.estimated_stepping_batches - trainer.global_step) * seconds
            speed = f"{self.tokens_per_step / seconds:,.0f} tokens/s, " if self.tokens_per_step else ""
            text = (
                f"{speed}{seconds:.3g} s a step: "
                f"about {duration(left)} to go, validation and callbacks aside; "
                f"memory at its peak: {size_text(peak_bytes(trainer.strategy.root_device))}"
            )
            if trainer.is_global_zero:
                print(text, flush=True)

    def rows(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> list[tuple[str, str]]:
        """The lines of the table."""
        parameters = list(pl_module.parameters())
        trainable = [p for p in parameters if p.requires_grad]
        total, trained = (sum(p.numel() for p in group) for group in (parameters, trainable))
        optimizer = optimizer_bytes(trainer.optimizers[0], trainable) if trainer.optimizers else None
        device, tokens = trainer.strategy.root_device, batch_tokens(batch)
        activations = activation_bytes(pl_module, tokens, trainer.precision)
        if activations is not None and device.type == "cpu" and any(map(is_adapted, pl_module.modules())):
            activations = int(HOLES * activations)
        weights, gradients = local_bytes(parameters), local_bytes(trainable)
        held = max(weights, held_bytes(device))  # a CPU counts the program too
        known = [size for size in (held, gradients, optimizer, activations) if size is not None]
        epoch, steps = epoch_tokens(trainer, batch), trainer.estimated_stepping_batches
        records = records_at_once(trainer)
        return [
            ("parameters", f"{total:,} ({trained / max(total, 1):.2%} trained)"),
            ("weights", size_text(weights)),
            ("gradients", size_text(gradients)),
            ("optimizer state", size_text(optimizer)),
            (f"activations, {count_text(tokens)} tokens", size_text(activations, "about ")),
            (f"together, per {'process' if device.type == 'cpu' else 'device'}", size_text(sum(known), "about ")),
            *one_at_a_time(trainer, records, sum(known), activations),
            *getattr(trainer.datamodule, "chosen", {}).items(),
            ("tokens per step", count_text(self.tokens_per_step)),
            ("tokens per epoch", count_text(epoch)),
            ("steps", "until stopped" if steps in (float("inf"), -1) else f"{steps:,} ({trainer.global_step:,} done)"),
            ("runs on", runs_on(trainer)),
        ]


def count_text(count: int | None) -> str:
    """A number of tokens; what a policy learns from that writes it first is not known beforehand."""
    return f"{count:,}" if count else "unknown"


def batch_tokens(batch: Any) -> int:
    """Tokens that a forward pass over the batch computes; 0 for a batch without tokens, such as prompts to answer."""
    batch = getattr(batch, "forest", batch)
    return batch.input_ids.numel() if isinstance(batch, TokenRows | Forest) else 0


def epoch_tokens(trainer: Trainer, batch: Any) -> int | None:
    """Tokens of an epoch: of all records, each prompt once, or as many as this batch in each; None without an end."""
    table = getattr(trainer.datamodule, "table", None)
    records = table("train") if callable(table) else None
    if not batch_tokens(batch):
        return None
    if records is not None and trainer.limit_train_batches == 1.0 and trainer.overfit_batches == 0.0:
        return int(records.prompts.lengths.sum() + records.answers.lengths.sum())
    batches = trainer.num_training_batches
    return None if batches == float("inf") else batches * batch_tokens(batch) * trainer.world_size


def records_at_once(trainer: Trainer) -> int:
    """Records of a micro-batch on a device, as many as cannot be fewer taken for one; 1 where nobody counts them."""
    data = trainer.datamodule
    size, least = getattr(data, "batch_size", None), getattr(data, "least", 1)
    return size // (trainer.accumulate_grad_batches * trainer.world_size * least) if isinstance(size, int) else 1


def one_at_a_time(trainer: Trainer, records: int, together: int, activations: int | None) -> list[tuple[str, str]]:
    """What smaller micro-batches would save, if that is much: the step is the same, and on a CPU as fast."""
    saved = 0 if activations is None else activations * (records - 1) // max(records, 1)
    if saved < together / 10:
        return []
    more = f"--trainer.accumulate_grad_batches {trainer.accumulate_grad_batches * records}"
    return [("the same step in less", f"about {size_text(together - saved)}: {more}")]


def held_bytes(device: torch.device) -> int:
    """What is held on the device now; 0 where nobody tells.

    On a CPU glibc first gives back what is free: a process that read weights or wrote a cache before still has that
    memory, and the run will take it again.
    """
    if device.type != "cpu":
        return torch.accelerator.memory_allocated(device)
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if give_back is not None:
        give_back(0)
    return _of_process("VmRSS")


def peak_bytes(device: torch.device) -> int | None:
    """The most that was held on the device; None where nobody tells."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device)
    return _of_process("VmHWM") or None


def _of_process(name: str) -> int:
    """A line of Linux's page on this process, bytes."""
    page = Path("/proc/self/status")
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


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
