"""Pairs of random tokens in fixed order, labelled answers, and runs over them, for tests of preference losses."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import CSVLogger

from datamodules.loading import Position, ResumableLoader, shares
from lm.forests.batches import LabelledBatch, PairBatch
from lm.forests.forest import Forest, Path
from tests.stand_ins import tiny_tokenizer, trainer


class Pair(NamedTuple):
    """Token ids, and the id of the record."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    id: str
    weight: float = 1.0


def random_pairs(n: int, seed: int = 0, weights: bool = False) -> list[Pair]:
    """Pairs of unequal lengths; every third has the prompt of the one before it."""
    generator = torch.Generator().manual_seed(seed)

    def ids(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most, (1,), generator=generator))
        return torch.randint(1, 256, (length,), generator=generator).tolist()

    pairs: list[Pair] = []
    for i in range(n):
        prompt = pairs[-1].prompt if i % 3 == 2 else ids(3, 9)
        weight = float(torch.rand(1, generator=generator)) + 0.5 if weights else 1.0
        pairs.append(Pair(prompt, ids(1, 12), ids(1, 12), f"pair-{seed}-{i}", weight))
    return pairs


def pair_batch(
    pairs: Sequence[Pair], rows: Sequence[int], layout: str = "answers", margins: float = 0.0, references: Any = None
) -> PairBatch:
    """Some of the pairs, as `lm.forests.batches.PairBatch` describes."""
    some = [pairs[row] for row in rows]
    paths = [Path(p.prompt + side, len(p.prompt)) for p in some for side in (p.chosen, p.rejected)]
    groups = [tuple(p.prompt) for p in some for _ in range(2)]
    if layout == "answers_and_rows":
        paths += [Path(p.prompt + p.chosen, 1) for p in some]
        groups += [tuple(p.prompt) for p in some]
    weights = torch.tensor([p.weight for p in some])
    given = None if references is None else references[list(rows)].flatten()
    forest = Forest.from_paths(paths, groups)
    return PairBatch(forest, torch.tensor(list(rows)), weights, weights * 0 + margins, [p.id for p in some], given)


@dataclass
class Table:
    """All pairs of a split."""

    pairs: list[Pair]
    references: Any = None

    @property
    def ids(self) -> list[str]:
        return [pair.id for pair in self.pairs]

    @property
    def content_sha256(self) -> str:
        return hashlib.sha256(repr(self.pairs).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: Sequence[int], layout: str) -> PairBatch:
        return pair_batch(self.pairs, rows, layout, references=self.references)


class PairData(LightningDataModule):
    """Fixed pairs in fixed order, ``step`` of them an optimizer step."""

    def __init__(
        self, pairs: list[Pair], step: int, val: list[Pair] | None = None, margins: float = 0.0, references: Any = None
    ):
        super().__init__()
        self.pairs, self.step, self.val, self.margins, self.references = pairs, step, val, margins, references
        self.tokenizer = tiny_tokenizer()

    def table(self, split: str) -> Table | None:
        if split == "val":
            return None if self.val is None else Table(self.val)
        return Table(self.pairs, self.references)

    @property
    def layout(self) -> str:
        return self.trainer.lightning_module.pair_layout

    def train_dataloader(self) -> ResumableLoader:
        accumulation = self.trainer.accumulate_grad_batches
        micro = self.step // accumulation

        def batch_at(position: Position) -> Any:
            first = position.in_epoch * micro
            return self.micro_batch(range(first, min(first + micro, len(self.pairs))))

        return ResumableLoader(batch_at, -(-len(self.pairs) // micro), self.trainer, accumulation)

    def micro_batch(self, rows: Sequence[int]) -> Any:
        return pair_batch(self.pairs, rows, self.layout, self.margins, self.references)

    def val_dataloader(self) -> Any:
        if self.val is None:
            return []
        parts = shares(len(self.val), 0, 1, 3)
        return ResumableLoader(lambda p: pair_batch(self.val, parts[p.number], self.layout), len(parts))


def labelled_batch(pairs: Sequence[Pair], rows: Sequence[int]) -> LabelledBatch:
    """Chosen and rejected answers of the pairs as answers of their own; every one is rolled onto the next's prompt."""
    answers = [(pairs[row], good) for row in rows for good in (True, False)]
    own = [Path(p.prompt + (p.chosen if good else p.rejected), len(p.prompt)) for p, good in answers]
    other = [
        Path(after.prompt + (p.chosen if good else p.rejected), len(after.prompt))
        for (p, good), (after, _) in zip(answers, answers[1:] + answers[:1], strict=True)
        if after.prompt != p.prompt
    ]
    labels = torch.tensor([good for _, good in answers])
    numbers = torch.tensor([2 * row + side for row in rows for side in range(2)])
    ids = [f"{p.id}-{good}" for p, good in answers]
    weights = torch.tensor([p.weight for p, _ in answers])
    return LabelledBatch(Forest.from_paths(own + other), labels, numbers, weights, ids)


class LabelledData(PairData):
    """The answers of fixed pairs."""

    def table(self, split: str) -> Any:
        return SimpleNamespace(labels=np.array([True, False] * len(self.pairs)))

    def micro_batch(self, rows: Sequence[int]) -> Any:
        return labelled_batch(self.pairs, rows)

    def val_dataloader(self) -> Any:
        return [] if self.val is None else ResumableLoader(lambda p: labelled_batch(self.val, [0, 1, 2]), 1)


class Gradients(Callback):
    """Keeps the gradients that each optimizer step took, after clipping."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})


class Saves(Callback):
    """Writes a checkpoint after some step."""

    def __init__(self, path: Any, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class Run(NamedTuple):
    """What a fit leaves behind."""

    module: Any
    gradients: list[dict[str, torch.Tensor]]
    trainer: Any
    logs: list[dict[str, float]]


def fit(folder: Any, module: Any, data: PairData, seed: int = 1, ckpt_path: Any = None, **arguments: Any) -> Run:
    """One quiet fit on the CPU; logs every step."""
    torch.manual_seed(seed)
    kept, logger = Gradients(), CSVLogger(folder)
    callbacks = [kept, *arguments.pop("callbacks", [])]
    given = {"max_epochs": 1, "logger": logger, "log_every_n_steps": 1, "callbacks": callbacks} | arguments
    run = trainer(folder, **given)
    run.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    with open(f"{logger.log_dir}/metrics.csv", encoding="utf-8") as file:
        logs = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return Run(module, kept.steps, run, logs)
