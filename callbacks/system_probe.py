"""Asks at every validation whether a model heeds its system messages, without generating or judging anything.

An answer is likelier under the message it was written for than under that of another variant of its instruction, if the
message is read at all. This file knows when to measure. It does not know how records became tokens
(lm/tokens/answer_tokens.py) or how they are scored.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lm.forests.answer_forests import Answer, answer_forest
from lm.protocols import ScoresForests
from lm.scoring.logprobs import path_sums
from lm.tokens.answer_tokens import AnswerTable
from text.errors import UserError


class SystemMessageProbe(Callback):
    """Logs ``probe/system_gain``: how much likelier answers are under their own message than under another one.

    For the answer y of a record, its prompt x and the prompt x' of the next variant of its instruction,

        gain = mean over tokens of  log p(y | x) - log p(y | x'),  nats per token.

    0 means that messages are not read. It takes held-out records of which some have variants: records of one group
    under different messages. Every rank measures all of them: they are few, and sharded models need all ranks.

    Args:
        every_n_val: measure at every so many validations.
        max_items: answers that are measured; the first ones of the split.
        max_batch_tokens: of a forward.
    """

    def __init__(self, every_n_val: int = 1, max_items: int = 256, max_batch_tokens: int = 8192):
        if min(every_n_val, max_items, max_batch_tokens) < 1:
            raise UserError("SystemMessageProbe: every_n_val, max_items and max_batch_tokens must be 1 or more")
        self.every_n_val, self.max_items, self.max_batch_tokens = every_n_val, max_items, max_batch_tokens
        self._validations = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless this validation is left out."""
        if trainer.sanity_checking:
            return
        self._validations += 1
        if (self._validations - 1) % self.every_n_val:
            return
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model, data, device = pl_module, trainer.datamodule, pl_module.device  # type: ignore[attr-defined]
        if not isinstance(model, ScoresForests):
            raise UserError(f"SystemMessageProbe needs a model with forest_logprobs, not {type(model).__name__}")
        swaps = swapped_prompts(data.table("val"), self.max_items)
        with trainer.precision_plugin.forward_context():
            gain = system_gain(model, swaps, self.max_batch_tokens, device)
        self.log("probe/system_gain", gain, rank_zero_only=True, batch_size=1)

    def state_dict(self) -> dict[str, int]:
        """How many validations there were: a resumed run measures at the same ones."""
        return {"validations": self._validations}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting."""
        self._validations = state["validations"]


Swap = tuple[Answer, Answer]  # an answer after its own prompt, and after that of another variant


def swapped_prompts(table: AnswerTable | None, most: int) -> list[Swap]:
    """Answers of instructions that have variants, each after its own prompt and after that of the next variant.

    Raises:
        UserError: if no instruction has two different prompts.
    """
    groups: dict[int, list[int]] = {}
    for row, group in enumerate([] if table is None else table.groups.tolist()):
        groups.setdefault(group, []).append(row)
    swaps: list[Swap] = []
    for rows in groups.values():
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
            assert table is not None
            if table.prompt_of[row] != table.prompt_of[other]:
                own = table.answer(row)
                swaps.append((own, (table.answer(other)[0], own[1])))
    if not swaps:
        raise UserError(
            "SystemMessageProbe has nothing to swap: it needs held-out records (data.val) of which some are variants "
            "of one instruction (the same group_id, or the same prompt) under different system messages"
        )
    return swaps[:most]


def system_gain(model: ScoresForests, swaps: list[Swap], max_batch_tokens: int, device: torch.device) -> Tensor:
    """Mean over tokens of what answers gain from their own message, nats per token."""
    gained, tokens = torch.zeros((), dtype=torch.float64), 0
    for part in _parts(swaps, max_batch_tokens):
        labels = [number for number in range(len(part)) for _ in range(2)]
        forest = answer_forest([answer for swap in part for answer in swap], labels).to(device)
        sums = path_sums(model.forest_logprobs(forest), forest).double().cpu()
        gained += (sums[::2] - sums[1::2]).sum()
        tokens += sum(len(own[1]) for own, _ in part)
    return (gained / tokens).float()


def _parts(swaps: list[Swap], max_batch_tokens: int) -> Iterator[list[Swap]]:
    """The swaps by as many as a forward may have tokens."""
    sizes = [sum(len(tokens) for answer in swap for tokens in answer) for swap in swaps]
    ends = np.cumsum(sizes) // max_batch_tokens
    for number in np.unique(ends):
        yield [swap for swap, end in zip(swaps, ends, strict=True) if end == number]
