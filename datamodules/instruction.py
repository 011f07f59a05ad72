"""Instructions with their answers, for supervised fine-tuning.

Knows which answers of a conversation are trained on. It does not know the loss (modules/sft.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from datamodules.conversations import Conversations
from datamodules.records import Sources
from lm.tokens.answer_tokens import AnswerTable, Example
from text.chat.chat_records import ChatRecord, InstructionRecord
from text.chat.dialogues import PAIR_FORMATS
from text.records import Located


class Instructions(Conversations[AnswerTable]):
    """Instructions and answers (`text.chat.chat_records.InstructionRecord`); a batch has a path per answer.

    Scored are the tokens of the answer and the one that ends the turn. The turns of a conversation share what comes
    before them, and it is computed once. Answers of ``weight`` 0 stay in the prompts of later ones and are not scored.

    Args:
        train: see Conversations; so are the other arguments.
        format: of the records: ``instructions``, or the chosen answers of ``pairs`` or of whole ``dialogues`` in pairs.
        turns: train on ``all`` answers of a conversation, or on the ``last`` one.
        over_length: ``drop`` leaves out answers that are too long with their prompt; ``truncate`` cuts first the end of
            the answer, and its end token with it, then the beginning of the prompt.
    """

    table_kind = AnswerTable
    called = "answers"

    def __init__(
        self,
        train: Sources,
        format: Literal["instructions", "pairs", "dialogues"] = "instructions",
        turns: Literal["all", "last"] = "all",
        over_length: Literal["drop", "truncate"] = "drop",
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.format, self.turns = format, turns
        self.limits = replace(self.limits, cut=over_length == "truncate")

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """The type of the format."""
        return PAIR_FORMATS.get(self.format, InstructionRecord)

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """One for every answer that is trained on."""
        record, name = found.record, found.record.id or found.where
        is_pair = not isinstance(record, InstructionRecord)
        answer = record.chosen if is_pair else record.answer
        trained = is_pair or record.spoken.trained
        if not answer:
            return "empty answers"
        last = Example(name, record.prompt, (answer,), (True,), record.system, record.group_id, inputs=record.inputs)
        if isinstance(record.prompt, str) or self.turns == "last":
            return [last] if trained else "answers of weight 0"
        last = last._replace(group=record.group_id or found.where, tree=found.where, unit=found.where)
        earlier = [
            last._replace(id=f"{name}#{number}", prompt=record.prompt[:number], answers=(message.answer,))
            for number, message in enumerate(record.prompt)
            if message.role == "assistant" and message.trained and message.answer
        ]
        return [*earlier, *([last] if trained else [])] or "answers of weight 0"
