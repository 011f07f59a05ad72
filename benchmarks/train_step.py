"""A step of training: what a run of `main.py` adds to a bare torch loop, and tokens a second beside a peer.

    python benchmarks/train_step.py [--quick]

First the same model, rows (2048 tokens a step) and optimizer, logging every 10 steps: a run as the command line makes
it, with its data, callbacks, loggers and checkpoints, against a dozen lines of torch that find their batches in a list.
The two take turns within one process, ten steps each, so that a busy moment hits both alike. Losses must agree before a
ratio is printed. Then sequences of unequal length, against the Hugging Face Trainer (benchmarks/unequal_lengths.py).
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.unequal_lengths import compare
from cli import trainer_cli
from cli.notices import quiet
from lm.forests.batches import TokenRows
from lm.tokens.tokenizer import BPETokenizer

TURN = 10  # steps; a value is logged once a turn
ROWS, LENGTH, VOCABULARY = 16, 128, 2048
SIZES = {  # name: hidden size, layers, target for the overhead
    "2 M": (160, 6, 0.03),
    "10 M": (320, 8, 0.01),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, two turns: only to see that it runs")
    parser.add_argument("--turns", type=int, default=12, help="turns that are measured; default 12")
    options = parser.parse_args()
    quiet()
    table = Table("model", "bare loop, s a step", "fit, s a step", "overhead", "target")
    for name, (width, layers, target) in {"tiny": (32, 2, 1.0)}.items() if options.quick else SIZES.items():
        turns, parameters = take_turns(width, layers, 2 if options.quick else options.turns)
        ratios = [ours / bare - 1 for ours, bare in zip(turns.ours, turns.bare, strict=True)]
        low, high = np.percentile(ratios, [25, 75])
        overhead = f"{np.median(ratios):+.2%} ({low:+.2%} to {high:+.2%})"
        table.add_row(f"{name}: {parameters:,}", spread(turns.bare), spread(turns.ours), overhead, f"<= {target:.0%}")
    print(
        f"{ROWS * LENGTH} tokens a step, float32, {torch.get_num_threads()} threads; medians and quartiles of turns of"
    )
    print(f"{TURN} steps. Losses of both agree.")
    Console(width=120).print(table)
    peers = compare(32, 2, 200, 1) if options.quick else compare(160, 6, 600, 5)
    print("Sequences of unequal length, 2 M parameters; medians of epochs. Losses of all ways agree.")
    Console(width=120).print(peers)


def spread(turns: list[float]) -> str:
    """Median and quartiles of seconds a step."""
    low, middle, high = np.percentile(turns, [25, 50, 75]) / TURN
    return f"{middle:.4f} ({low:.4f} - {high:.4f})"


def take_turns(width: int, layers: int, turns: int) -> tuple[TakeTurns, int]:
    """Run `main.py fit` with a bare loop inside; returns the times and the number of parameters."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = BPETokenizer(vocab_size=300).build(["bytes are enough"])
        tokenizer.save_pretrained(f"{folder}/tokenizer")
        tokens = np.random.default_rng(0).integers(0, len(tokenizer), (turns + 3) * TURN * ROWS * LENGTH)
        np.save(f"{folder}/tokens.npy", tokens.astype("uint16"))
        shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers}
        shape |= {"num_attention_heads": width // 32, "vocab_size": VOCABULARY, "tie_word_embeddings": True}
        backbone = {"class_path": "ScratchBackbone", "init_args": {"architecture": "llama", "config": shape}}
        own = {"class_path": "PretrainedTokenizer", "init_args": {"name_or_path": f"{folder}/tokenizer"}}
        data = {"train": f"{folder}/tokens.npy", "tokenizer": own, "seq_len": LENGTH, "batch_size": ROWS}
        config = {
            "model": {"class_path": "KnowledgeProbe", "init_args": {"backbone": backbone}},
            "data": {"class_path": "Corpus", "init_args": data},
            "trainer": {
                "accelerator": "cpu",
                "max_steps": (turns + 1) * TURN + 1,
                "log_every_n_steps": TURN,
                "default_root_dir": f"{folder}/runs",
                "callbacks": [{"class_path": f"{TakeTurns.__module__}.TakeTurns"}],
            },
        }
        run = trainer_cli.main({"subcommand": "fit", "fit": config})
        [found] = (c for c in run.trainer.callbacks if isinstance(c, TakeTurns))  # type: ignore[attr-defined]
        return found, sum(p.numel() for p in run.model.parameters())


class TakeTurns(Callback):
    """After every turn of the run, the same steps once more as a bare loop; the first turn of both warms up."""

    model: Any
    began: float

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.batches: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy model and optimizer as they are before the first step."""
        self.model = copy.deepcopy(pl_module.model)
        parameters = list(self.model.parameters())
        groups: list[dict[str, Any]] = [{"params": [p for p in parameters if p.ndim > 1]}]
        groups.append({"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: TokenRows, index: int) -> None:
        """End our turn, have the other, begin ours."""
        if index % TURN == 0:
            now = time.perf_counter()
            if index > TURN:
                self.ours.append(now - self.began)
            if index > 0:
                seconds, loss = self.bare_turn()
                torch.testing.assert_close(trainer.callback_metrics["train/loss"], loss, atol=1e-4, rtol=0)
                if index > TURN:
                    self.bare.append(seconds)
            self.batches = []
            self.began = time.perf_counter()
        self.batches.append(batch.input_ids)

    def bare_turn(self) -> tuple[float, Tensor]:
        """Seconds of a turn of the loop that one writes without any framework, and its last loss."""
        began = time.perf_counter()
        for step, rows in enumerate(self.batches, 1):
            logits = self.model(rows[:, :-1], use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            if step % TURN == 0:
                norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
                print(f"loss {loss.item():.4f}, gradient {norm.item():.4f}", file=sys.stderr)
            self.optimizer.step()
        return time.perf_counter() - began, loss.detach()


if __name__ == "__main__":
    main()
