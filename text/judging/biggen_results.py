"""The published results of BiGGen Bench: answers of many models with scores by a human and by evaluators.

Columns as in ``prometheus-eval/BiGGen-Bench-Results`` (arXiv 2406.05761). This file does not know how well judges and
humans agree (metrics/judging/meta_evaluation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from text.chat.messages import blame
from text.judging.rubrics import Rubric
from text.records import Record, Text

NO_RATING = -1  # what stands where no human rated
ENDING = "_score"  # of the columns of evaluators
HUMAN = "human"


class ResultRecord(Record):
    """An answer of one model to one instance, judged.

    Args:
        instance: ``id`` in the file, the same for the answers of all models.
        model_name: who answered.
        capability: of the instance.
        task: of the instance.
        response: the answer; null is an empty one.
        human_score: from 1 to 5, -1 for none.
        used_for_training: whether the row was among what an evaluator was trained on.
        system_prompt: for a judge that is asked now, like the fields below.
        input: what was answered.
        reference_answer: deserves the highest score.
        score_rubric: of the instance; as plain text it is of no use to a judge, and is not read.
    """

    model_config = ConfigDict(extra="allow")

    instance: Text = Field(validation_alias="id")
    model_name: Text
    capability: Text
    task: Text
    response: str | None = None
    human_score: float = Field(NO_RATING, ge=NO_RATING, le=5)  # tables with gaps hold whole numbers as floats
    used_for_training: bool = False
    system_prompt: str = ""
    input: str = ""
    reference_answer: str | None = None
    score_rubric: Annotated[Rubric | None, BeforeValidator(lambda given: None if isinstance(given, str) else given)] = (
        None
    )

    @property
    def human(self) -> float | None:
        """The human's score, if there is one."""
        return self.human_score if self.human_score >= 1 else None

    def judges(self) -> list[str]:
        """Evaluators that have a column here: ``<name>_score``."""
        return [name.removesuffix(ENDING) for name in self.model_extra or {} if name.endswith(ENDING)]

    def ratings(self, judge: str) -> list[float | None]:
        """What an evaluator said: a rating or several, None where there is none on the scale.

        Raises:
            ValidationError: for a column that holds anything but ratings.
        """
        column = f"{judge}{ENDING}"
        given = (self.model_extra or {}).get(column)
        listed: Sequence[Any] = given if isinstance(given, list) else [given]
        for rating in listed:
            if rating is not None and (isinstance(rating, bool) or not isinstance(rating, int | float)):
                blame(column, f"should be a rating from 1 to 5, null, or a list of such, not {given!r:.60}")
        return [float(rating) if rating is not None and 1 <= rating <= 5 else None for rating in listed]
