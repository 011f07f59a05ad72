"""Open-domain questions: records of them, what counts as an answer, prompts, and verdicts read in what a model writes.

It does not know who answers.
"""

from text.qa.answers import contains_answer, normalise_answer
from text.qa.prompts import Demonstration, QAPrompts, Wording
from text.qa.qa_records import ContextRecord, QAQuestion, TaskRecord

__all__ = [
    "ContextRecord",
    "Demonstration",
    "QAPrompts",
    "QAQuestion",
    "TaskRecord",
    "Wording",
    "contains_answer",
    "normalise_answer",
]
