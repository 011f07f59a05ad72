"""Records become the steps of a run: how many a step takes, into which micro-batches it is cut, and in which order.

This file knows tables of records, sizes and ranks. It does not know how records are read or tokenised
(datamodules/conversations.py), nor what a batch is made of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from lightning.pytorch import LightningDataModule

from datamodules.loading import ResumableLoader, layout, require_free_choice, shares
from datamodules.records import Sources, name_of
from lm.files.hyperparameters import PlainHyperparameters
from lm.forests.record_order import CountedBatches, GroupedOrder, PackedBatches, parts_of_a_step
from lm.scoring.memory import token_budget
from lm.steps.gather import from_rank_0
from lm.tokens.answer_tokens import AnswerTable
from text.errors import UserError

T = TypeVar("T", bound=AnswerTable)

AUTO = "auto"


class RecordSteps(PlainHyperparameters, LightningDataModule, Generic[T]):
    """The loaders of data whose records stand in tables; see Conversations for its options.

    Attributes:
        sources: where records are from, by split.
        batch_size: records of a step, None where ``micro_batch_tokens`` is a number.
        micro_batch_tokens: tokens of a micro-batch.
        seed: of the order.
        group: records of a group are met side by side.
        accumulated: micro-batches of a step, once they are chosen.
        chosen: what was chosen for the user, in words, by what it is.
    """

    least: ClassVar[int] = 1  # records of a micro-batch
    called: ClassVar[str] = "records"

    sources: dict[str, Sources]
    batch_size: int | None
    micro_batch_tokens: int | str | None
    seed: int
    group: bool
    accumulated: int | None
    chosen: dict[str, str]
    _tables: dict[str, T]  # those that were read, by split

    @abstractmethod
    def table(self, split: str) -> T | None:
        """All records of ``train``, ``val`` or ``test`` as tokens; None without such a source."""

    @abstractmethod
    def batch(self, table: T, rows: Sequence[int]) -> Any:
        """Some records of a table."""

    def train_dataloader(self) -> ResumableLoader:
        """This rank's micro-batches; an epoch is as many whole optimizer steps as the records fill."""
        table = self._tables["train"]
        self._choose_micro_batches(table)
        batches, accumulation, repeats = self._batches(table), layout(self.trainer)[0], self.repeats
        return ResumableLoader(
            lambda at: self.batch(table, batches.rows(at.step // repeats, at.in_epoch % accumulation).tolist()),
            len(batches) * repeats,
            self.trainer,
            accumulation,
        )

    @property
    def repeats(self) -> int:
        """Optimizer steps in turn that are of the same records."""
        return 1

    def val_dataloader(self) -> ResumableLoader | list:
        """Every record once over all ranks, as many batches on each."""
        return self._once("val")

    def test_dataloader(self) -> ResumableLoader | list:
        """The same of what is tested on."""
        return self._once("test")

    def _choose_micro_batches(self, table: T) -> None:
        """With ``auto``: tell the trainer, once, into how many micro-batches a step is cut; all ranks alike."""
        trainer: Any = self.trainer
        if self.micro_batch_tokens != AUTO or self.batch_size is None or trainer is None:
            return
        if self.chosen and trainer.accumulate_grad_batches == self.accumulated:
            return
        require_free_choice(trainer, "data.micro_batch_tokens: auto")
        tokens = token_budget(trainer.lightning_module, trainer.strategy.root_device, str(trainer.precision))
        if tokens is None:
            raise UserError("data.micro_batch_tokens: auto estimates decoders with attention: give a number, or null")
        world_size, kept = layout(trainer)[2], self.accumulated is not None
        if self.accumulated is None:
            parts = parts_of_a_step(table.sizes.sum(axis=0), self.batch_size // world_size, tokens, self.least)
            self.accumulated = from_rank_0(parts)
        trainer.accumulate_grad_batches = self.accumulated
        why = "as in the checkpoint" if kept else f"at most {tokens:,} tokens at once"
        self.chosen = {"micro-batches of a step": f"{self.accumulated}, chosen ({why})"}

    def state_dict(self) -> dict[str, Any]:
        """What was chosen: a resumed run has the same batches on whatever device."""
        return {"accumulated": self.accumulated} if self.micro_batch_tokens == AUTO and self.accumulated else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what was chosen."""
        self.accumulated = int(state_dict["accumulated"])

    def _once(self, split: str) -> ResumableLoader | list:
        if (table := self.table(split)) is None:
            return []
        self._choose_micro_batches(self._tables.get("train", table))
        parts = [rows.tolist() for rows in self._shares(table)]
        return ResumableLoader(lambda at: self.batch(table, parts[at.number]), len(parts))

    def _shares(self, table: T) -> list[np.ndarray]:
        rows = GroupedOrder(table.groups, self.seed).as_given()
        if self.batch_size is None:
            return self._packed(table).shares(rows)
        accumulation, rank, world_size = layout(self.trainer, self.batch_size)
        parts = shares(len(table), rank, world_size, self.batch_size // (accumulation * world_size))
        return [rows[part.start : part.stop] for part in parts]

    def _batches(self, table: T) -> CountedBatches | PackedBatches:
        batches: CountedBatches | PackedBatches
        if self.batch_size is None:
            batches = self._packed(table)
        else:
            order = self._order(table)
            batches = counted = CountedBatches(order, self.batch_size, *layout(self.trainer, self.batch_size))
            if counted.micro < self.least:
                raise UserError(
                    f"data.batch_size {self.batch_size} makes micro-batches of {counted.micro}, and {self.called} take "
                    f"{self.least}: give more, or fewer accumulated batches"
                )
        if not len(batches):
            raise UserError(
                f"{name_of(self.sources['train'])}: {len(table):,} {self.called} do not fill one optimizer step: give "
                "more, or a smaller batch_size or micro_batch_tokens"
            )
        return batches

    def _order(self, table: T) -> GroupedOrder:
        return GroupedOrder(table.groups if self.group else table.units, self.seed)

    def _packed(self, table: T) -> PackedBatches:
        assert isinstance(self.micro_batch_tokens, int)
        return PackedBatches(
            self._order(table), table.sizes, table.prompt_of, self.micro_batch_tokens, self.least, *layout(self.trainer)
        )
