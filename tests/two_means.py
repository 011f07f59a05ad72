"""A loss of two means, and rows cut into micro-batches that hold many of one kind and none of the other."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from datamodules.loading import Position, ResumableLoader, layout
from lm.forests.batches import TokenRows
from modules.base.language_module import LanguageModule
from tests.stand_ins import tiny_tokenizer, token_rows

STEPS = (range(0, 8), range(8, 16), range(16, 21))
"""Rows of each optimizer step."""
OF_ROWS = 0.3
"""What the mean over rows counts."""


def scored(batch: TokenRows) -> Tensor:
    """Which tokens are of the first mean: another number in every row, bool [B, S-1]."""
    return batch.input_ids[:, 1:] < 100


def marked(batch: TokenRows) -> Tensor:
    """Which rows are of the second mean, bool [B]."""
    return batch.input_ids[:, 0] < 100


def of_rows(logprobs_BT: Tensor, batch: TokenRows) -> Tensor:
    """Losses of the marked rows."""
    return logprobs_BT.mean(dim=1).square()[marked(batch)]


class TwoMeans(LanguageModule):
    """Minimises the mean over scored tokens and, beside it, one over marked rows, in float64 under any strategy."""

    def prepare_model(self, model: nn.Module) -> None:
        model.double()

    def training_step(self, batch: TokenRows, batch_idx: int) -> Tensor:
        logprobs_BT = self.row_logprobs(batch)
        tokens, rows = self.step_total(batch, self.count)
        self.log_for("train", "of_rows", of_rows(logprobs_BT, batch))
        return self.global_mean(-logprobs_BT, scored(batch).float(), total=tokens) + self.global_mean(
            of_rows(logprobs_BT, batch), total=rows, factor=OF_ROWS
        )

    @staticmethod
    def count(batch: TokenRows) -> Tensor:
        return torch.stack([scored(batch).sum(), marked(batch).sum()])


class UnevenRows(LightningDataModule):
    """The rows of `STEPS` over all ranks and micro-batches; when accumulating, the last step has one less of these.

    Marked are two rows of the first step and one of the last: the second step has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.rows = tiny_tokenizer(), token_rows(21)
        self.rows[:, 0] = 200
        self.rows[[0, 1, 20], 0] = 50

    def train_dataloader(self) -> ResumableLoader:
        accumulation, rank, world = layout(self.trainer)
        short = int(accumulation > 1)

        def batch_at(position: Position) -> TokenRows:
            step, micro = divmod(position.in_epoch, accumulation)
            rows, cuts = STEPS[step], (accumulation - (short if step + 1 == len(STEPS) else 0)) * world
            part = micro * world + rank
            first, end = (round(len(rows) * (edge / cuts) ** 1.5) for edge in (part, part + 1))  # later ones are larger
            return TokenRows(self.rows[list(rows[first:end])])

        return ResumableLoader(batch_at, len(STEPS) * accumulation - short, self.trainer)


def direct(module: Any, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of some rows and its gradients, by torch alone."""
    module.model.zero_grad()
    batch = TokenRows(rows)
    logprobs_BT = module.model(rows).logits[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
    loss = -logprobs_BT[scored(batch)].mean()
    if marked(batch).any():
        loss = loss + OF_ROWS * of_rows(logprobs_BT, batch).mean()
    loss.backward()
    return loss.detach(), {f"model.{n}": p.grad.clone() for n, p in module.model.named_parameters()}
