"""The single tasks of summarised retrieval to train a model on: answers, candidates, summaries and verdicts.

Knows which prompt goes with which record. It does not know the loss (modules/sft.py), nor how tasks are put together
when questions are answered (modules/sure/).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datamodules.conversations import Conversations
from datamodules.records import Sources
from lm.tokens.answer_tokens import AnswerTable, Example
from lm.tokens.prompt_styles import StyledRenderer
from text.qa.prompts import LETTERS, Prompt, QAPrompts
from text.qa.qa_records import TaskRecord, shown
from text.qa.verdicts import parse_candidates, parse_ranking
from text.records import Located


class QATasks(Conversations[AnswerTable]):
    """Tasks (`text.qa.qa_records.TaskRecord`); a batch has a path per task, scored on what is to be written.

    Tasks of a group (of one ``group_id``, else with the same passages) share what they have in common, above all the
    passages, and are met side by side with ``group: true``. A record that is too long is
    left out, never cut. `predict` of SuRe writes such records (``tasks.jsonl``), also those of a stronger model.

    Args:
        train: see Conversations; so are the other arguments.
        template: the words and the style of prompts; the same that questions are answered with later on.
    """

    table_kind = AnswerTable
    called = "tasks"

    def __init__(
        self,
        train: Sources,
        template: QAPrompts = QAPrompts(),  # noqa: B008  frozen
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.template = template
        self.limits = replace(self.limits, cut=False)

    def record_type(self, source: Sources, split: str) -> type[TaskRecord]:
        """Every source holds tasks."""
        return TaskRecord

    def examples(self, found: Located[TaskRecord], notes: Counter[str]) -> Sequence[Example]:
        """The prompt of the task and its target."""
        record = found.record
        prompt, target = prompt_of(self.template, record), self.template.written(said(self.template, record))
        passages = hashlib.sha256(prompt.passages.encode()).hexdigest() if prompt.passages else None
        tokens: tuple[list[int], ...] = ()
        if hasattr(self, "renderer"):  # a plain prompt takes no template, and a chat needs one
            styled = StyledRenderer(self.renderer, self.template)
            tokens = () if self.template.style == "chat" else (styled.ids(prompt), [])
        group = record.group_id or passages
        return [
            Example(record.id or found.where, prompt.text, (target,), (True,), group=group, tree=group, tokens=tokens)
        ]


def said(template: QAPrompts, record: TaskRecord) -> str:
    """What is to be written for a task: its target, with the passages' name as the words have it."""
    if record.task == "ranking" and (slot := parse_ranking(record.target)) is not None:
        return template.slots[slot - 1]
    return record.target


def prompt_of(template: QAPrompts, record: TaskRecord) -> Prompt:
    """What a model is asked for a task."""
    passages, question = shown(record.contexts), record.question
    match record.task:
        case "answer":
            return template.answer(question, passages)
        case "candidates":
            k = len(parse_candidates(record.target, len(LETTERS)).texts)
            return template.candidates(question, passages, max(2, k))
        case "summary":
            place = record.candidates.index(record.prediction or "")
            return template.summary(question, passages, record.candidates, place)
        case "validity":
            return template.validity(question, record.prediction or "", record.summaries[0])
        case "ranking":
            return template.ranking(question, *record.summaries)
