"""Instructions with their answers, for supervised fine-tuning.

Knows which answers of a conversation are trained on. It does not know the loss (modules/sft.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from datamodules.conversations import Conversations
from datamodules.records import Source
from lm.answers import AnswerTable, Example
from lm.forest import Forest
from lm.pair_forests import answer_forest
from text.chat_records import InstructionRecord
from text.records import Located


class Instructions(Conversations[AnswerTable]):
    """Instructions and answers (`text.chat_records.InstructionRecord`); a batch is a forest with a path per answer.

    Scored are the tokens of the answer and the end-of-text token after it. The turns of a conversation share what comes
    before them, and it is computed once.

    Args:
        train: see Conversations; so are the other arguments.
        turns: train on ``all`` answers of a conversation, or on the ``last`` one.
        over_length: ``drop`` leaves out answers that are too long with their prompt; ``truncate`` cuts first the end of
            the answer, and its end token with it, then the beginning of the prompt.
    """

    table_kind = AnswerTable
    called = "answers"

    def __init__(
        self,
        train: Source,
        turns: Literal["all", "last"] = "all",
        over_length: Literal["drop", "truncate"] = "drop",
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.turns = turns
        self.limits = replace(self.limits, cut=over_length == "truncate")

    def record_type(self, source: Source, split: str) -> type[InstructionRecord]:
        """Every source holds instructions."""
        return InstructionRecord

    def examples(self, found: Located[InstructionRecord], notes: Counter[str]) -> Sequence[Example]:
        """One for every answer that is trained on."""
        record, name = found.record, found.record.id or found.where
        last = Example(name, record.prompt, (record.output,), (True,), record.system, record.group_id)
        if isinstance(record.prompt, str) or self.turns == "last":
            return [last]
        of_one = {"group": record.group_id or found.where, "tree": found.where}
        earlier = [
            last._replace(id=f"{name}#{number}", prompt=record.prompt[:number], answers=(message.content,), **of_one)
            for number, message in enumerate(record.prompt)
            if message.role == "assistant" and message.content
        ]
        return [*earlier, last._replace(**of_one)] if earlier else [last]

    def batch(self, table: AnswerTable, rows: Sequence[int]) -> Forest:
        """One path per answer, in the order of ``rows``."""
        return answer_forest([table.answer(row) for row in rows], table.trees[rows].tolist())
