"""Tokens per second on sequences of unequal length: forests, beside the Hugging Face Trainer at its best.

Called by benchmarks/train_step.py. The same sequences, model and optimizer, about 2048 tokens a step, logging every 10
steps. Ours packs sequences side by side into one row, whose attention goes span by span. The Trainer may pad (in random
order, or grouped by length) or flatten; all are tried. Tokens are those of the sequences, without padding. On a batch
of the same sequences all losses must agree before anything is timed.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch import Trainer as LightningTrainer
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, TrainerCallback, TrainingArguments
from transformers import Trainer as HuggingFaceTrainer

from lm.backbones.backbone import ScratchBackbone
from lm.forests.forest import Forest, Path
from lm.tokens.tokenizer import BPETokenizer
from modules.base.language_module import LanguageModule

TOKENS = 2048
RATE = 3e-4
Ids = list[int]


class Sequences(LanguageModule):
    """Next-token prediction on packed sequences."""

    def training_step(self, batch: Forest, batch_idx: int) -> Tensor:
        """Mean over all tokens but the first of each sequence."""
        return self.global_mean(-self.forest_logprobs(batch))


def forest_of(sequences: Sequence[Ids]) -> Forest:
    """Sequences side by side."""
    return Forest.from_paths([Path(ids, 1) for ids in sequences])


def packed(sequences: Sequence[Ids], seed: int) -> list[list[Ids]]:
    """Batches of at most TOKENS, filled in random order."""
    batches: list[list[Ids]] = [[]]
    room = TOKENS
    for i in np.random.default_rng(seed).permutation(len(sequences)):
        if len(sequences[i]) > room:
            batches.append([])
            room = TOKENS
        batches[-1].append(sequences[i])
        room -= len(sequences[i])
    return batches


class Clock(Callback, TrainerCallback):
    """Seconds from the first step to the end, for both trainers."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Lightning's first step."""
        if batch_idx == 0:
            self.began = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The first step of the Trainer."""
        if state.global_step == 0:
            self.began = time.perf_counter()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Either's end."""
        self.seconds = time.perf_counter() - self.began


def ours(model: Any, sequences: Sequence[Ids], folder: str, seed: int) -> float:
    """Seconds of an epoch of ours."""
    module, clock = Sequences(ScratchBackbone("llama", {}), optimizer=partial(torch.optim.AdamW, lr=RATE)), Clock()
    module.model, module.tokenizer = model, tokenizer()
    loader: Any = DataLoader(packed(sequences, seed), batch_size=None, collate_fn=forest_of)  # type: ignore[arg-type]
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = LightningTrainer(
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=10,
        callbacks=[clock],
        default_root_dir=folder,
        **quiet,  # type: ignore[arg-type]
    )
    trainer.fit(module, loader)
    return clock.seconds


def padding() -> Any:
    """Rows of a batch padded to its longest."""
    return DataCollatorForSeq2Seq(tokenizer(), padding=True)


PEERS: dict[str, tuple[Callable[[], Any], str]] = {
    "Trainer, padded, random order": (padding, "random"),
    "Trainer, padded, grouped by length": (padding, "group_by_length"),
    "Trainer, flattened": (DataCollatorWithFlattening, "random"),
}


def peer(model: Any, sequences: Sequence[Ids], folder: str, seed: int, collator: Any, order: str) -> float:
    """Seconds of an epoch of the Trainer, at as many tokens a step on average."""
    rows = max(1, round(TOKENS * len(sequences) / sum(map(len, sequences))))
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=rows,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        train_sampling_strategy=order,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=seed,
        data_seed=seed,
    )
    data: Any = [{"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)} for ids in sequences]
    if isinstance(collator, DataCollatorWithFlattening):
        data = [{"input_ids": ids} for ids in sequences]
    trainer = HuggingFaceTrainer(model, arguments, train_dataset=data, data_collator=collator, callbacks=[clock])
    trainer.train()
    return clock.seconds


def check(model: Any, sequences: Sequence[Ids]) -> None:
    """All ways give one loss on the same sequences."""
    module = Sequences(ScratchBackbone("llama", {}))
    module.model = model
    with torch.no_grad():
        expected = -module.forest_logprobs(forest_of(sequences)).mean()
        for name, (collator, _) in PEERS.items():
            rows = [{"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)} for ids in sequences]
            if name.endswith("flattened"):
                rows = [{"input_ids": ids} for ids in sequences]
            batch = {key: torch.as_tensor(value) for key, value in collator()(rows).items()}
            loss = model(**batch).loss
            assert abs(loss - expected) < 1e-4, f"{name}: loss {loss}, ours {expected}"


def tokenizer() -> Any:
    """Any that can pad."""
    made = BPETokenizer(vocab_size=300).build(["only to pad with"])
    made.pad_token = made.eos_token
    return made


def compare(width: int, layers: int, count: int, rounds: int) -> Table:
    """Time all ways in turn and tabulate them."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.2, 0.8, count), 8, 512).astype(int)  # median 67, mean 90, a long tail
    sequences = [rng.integers(1, TOKENS, length).tolist() for length in lengths]
    shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers, "vocab_size": TOKENS}
    shape |= {"num_attention_heads": width // 32, "tie_word_embeddings": True}
    torch.manual_seed(0)
    start = ScratchBackbone("llama", shape).build(tokenizer())
    check(copy.deepcopy(start), sequences[:24])
    ways: dict[str, Callable[..., float]] = {"ours, forests": ours}
    ways |= {name: partial(peer, collator=make(), order=order) for name, (make, order) in PEERS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds + 1):
            for name, way in ways.items():
                speed = lengths.sum() / way(copy.deepcopy(start), sequences, folder, seed)
                if seed:  # the first round warms up
                    speeds[name].append(speed)
    medians = {name: float(np.median(values)) for name, values in speeds.items()}
    best = max(name for name in PEERS if medians[name] == max(medians[peer] for peer in PEERS))
    table = Table("way", "tokens a second", "slowest - fastest", f"to {best}", "target")
    for name, values in speeds.items():
        ratio, target = f"{medians[name] / medians[best]:.2f}x", "> 1x" if name.startswith("ours") else ""
        table.add_row(name, f"{medians[name]:,.0f}", f"{min(values):,.0f} - {max(values):,.0f}", ratio, target)
    return table
