"""Solutions: their steps, their final answers, and when two answers are the same.

It does not know models.
"""

from text.reasoning.answers import AnswerChecker, MathChecker, NumberChecker
from text.reasoning.reasoning_records import QuestionRecord
from text.reasoning.steps import LineSteps

__all__ = [
    "AnswerChecker",
    "LineSteps",
    "MathChecker",
    "NumberChecker",
    "QuestionRecord",
]
