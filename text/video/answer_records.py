"""Records of benchmarks about videos as they are spread: questions with predictions, verdicts about facts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from text.chat.messages import blame
from text.records import Id, Record, Text
from text.video.options import letter_named, options_in

NAMES = {"video": "video_id", "prompt": "question", "response": "prediction", "type": "aspect"}
"""What `predict` writes, and our name of it."""
VIDEO_CHATGPT = {"video_name": "video_id", "Q": "question", "A": "answer", "pred": "prediction"}
"""Names of Video-ChatGPT's files."""


class QuestionRecord(Record):
    """A question about a video with the right answer (TempCompass' fields; the names of `predict` are read too).

    Args:
        id: joins predictions; by video and question where it is missing.
        video_id: groups questions: intervals are over videos.
        question: with its options.
        answer: what is right.
        aspect, fine_aspect: group accuracies.
        prediction: on record; null is none.
        official_rating: 1 or 0 by whoever published the prediction.
        rephrases: id of the question that this one asks in other words: answers to both are judged together.
        mc_question: of a ``question`` that asks for a caption, what is asked of it: a choice, its options in lines.
        mc_answer: the right option of that.
    """

    model_config = ConfigDict(extra="ignore")

    id: Id | None = None
    video_id: Id
    question: Text
    answer: Text
    aspect: str | None = None
    fine_aspect: str | None = None
    prediction: str | None = None
    official_rating: Annotated[int, Field(ge=0, le=1)] | None = None
    rephrases: Id | None = None
    mc_question: Text | None = None
    mc_answer: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        return _with_our_names(data)

    @model_validator(mode="after")
    def _choice(self) -> Self:
        if (self.mc_question is None) != (self.mc_answer is None):
            blame("mc_answer" if self.mc_answer is None else "mc_question", "missing: a choice has both")
        if self.mc_question is not None and letter_named(self.mc_answer or "", options_in(self.mc_question)) is None:
            blame("mc_answer", f"{self.mc_answer!r:.60} is none of the options in the lines of 'mc_question'")
        return self

    @property
    def key(self) -> tuple[str, ...]:
        """What a prediction is found by."""
        return (self.id,) if self.id is not None else (self.video_id, self.question)


class PredictionRecord(Record):
    """What was said to a question.

    Args:
        id: of the question; or
        video_id, question: its video and its words.
        prediction: what was said; null is nothing.
    """

    model_config = ConfigDict(extra="ignore")

    wanted: ClassVar[str] = "'id', or 'video_id' and 'question'"

    id: Id | None = None
    video_id: Id | None = None
    question: str | None = None
    prediction: str | None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        given = _with_our_names(data)
        if isinstance(given, dict) and "id" not in given and not {"video_id", "question"} <= given.keys():
            blame("id", f"missing: a prediction needs {cls.wanted}")
        return given

    @property
    def key(self) -> tuple[str, ...]:
        """As that of its question."""
        return (self.id,) if self.id is not None else (self.video_id or "", self.question or "")


class FactVerdicts(Record):
    """What a judge said of the facts of a video's summary (VidFactScore, pegasus-1-eval).

    Args:
        video_id: of the video.
        precision_verdicts: of each fact that was told, whether the reference supports it, as the judge wrote it.
        recall_verdicts: of each fact of the reference, whether the summary tells it.
    """

    model_config = ConfigDict(extra="ignore")

    video_id: Id
    precision_verdicts: list[str]
    recall_verdicts: list[str]


def _with_our_names(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    given = dict(data)
    for theirs, ours in (NAMES | VIDEO_CHATGPT).items():
        if theirs in given and ours not in given:
            given[ours] = given.pop(theirs)
    if isinstance(said := given.get("question"), list) and said and isinstance(said[-1], dict):
        given["question"] = said[-1].get("content")  # of messages, what was asked last
    if isinstance(given.get("video_id"), list):
        given["video_id"] = " ".join(map(str, given["video_id"]))
    return given
