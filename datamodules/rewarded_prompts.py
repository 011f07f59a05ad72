"""Prompts whose answers are rewarded, by a program or a judge; questions with their right answers among them.

Knows records and where a right answer stands in them. It does not know who gives rewards, nor what is learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from datamodules.on_policy import OnPolicyPrompts
from datamodules.records import Sources
from lm.tokens.answer_tokens import Example
from text.chat.chat_records import ChatRecord, PromptRecord
from text.reasoning.answers import AnswerChecker, NumberChecker
from text.reasoning.reasoning_records import QuestionRecord
from text.records import Located


class RewardedPrompts(OnPolicyPrompts):
    """Prompts to train on, and to validate on (`PromptBatch`); a right answer goes along as ``gold``.

    Args:
        train: records; see OnPolicyPrompts, also for other arguments.
        format: of the records: ``prompts`` with whatever else they hold, or ``questions``, such as those of GSM8K and
            MATH (`text.reasoning.reasoning_records.QuestionRecord`), whose right answer is found in their solution
            where it is not told.
        checker: finds answers of questions.
    """

    called = "prompts"

    def __init__(
        self,
        train: Sources,
        format: Literal["prompts", "questions"] = "prompts",
        checker: AnswerChecker = NumberChecker(),  # noqa: B008  holds no state
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.format, self.checker = format, checker  # type: ignore[assignment]  # these are no pairs

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """The same in all splits."""
        return QuestionRecord if self.format == "questions" else PromptRecord  # type: ignore[comparison-overlap]

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The prompt; of a question with its right answer."""
        record = found.record
        if not isinstance(record, QuestionRecord):
            return super().examples(found, notes)
        asked = record.model_dump(include={*ChatRecord.model_fields}, exclude_unset=True)
        asked["gold"] = record.right_answer(self.checker, found.where)
        return super().examples(Located(PromptRecord.model_validate(asked), found.where, found.row), notes)
