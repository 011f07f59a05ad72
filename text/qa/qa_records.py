"""The records of open-domain questions: with passages, as they are spread, and single tasks to train a model on.

A record checks itself and says which field is wrong; where the line stood is the reader's business
(datamodules/records.py). What is asked of a model is written in text/qa/prompts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, field_validator, model_validator
from pydantic_core import PydanticCustomError

from text.chat.chat_records import ChatRecord
from text.qa.verdicts import parse_ranking, parse_validity
from text.records import Id, Record, Text
from text.retrieval.retrieval_records import GivenPassage

Task = Literal["answer", "candidates", "summary", "validity", "ranking"]
TASKS: tuple[Task, ...] = ("answer", "candidates", "summary", "validity", "ranking")


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except ValueError:
        return value


class ContextRecord(GivenPassage):
    """A passage that was found for a question; what else is there is read over.

    Args:
        id: may be missing; ``docid`` and ``passage_id`` are the same.
        title: may be empty.
        text: what it says; see PassageRecord.
        score: of whoever found it; text in DPR's files.
    """

    score: Annotated[FiniteFloat | None, BeforeValidator(_as_number)] = None

    @model_validator(mode="before")
    @classmethod
    def _as_others_write_it(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = dict(data)
        for name in ("id", "docid", "passage_id"):
            if name in given and "_id" not in given:
                given["_id"] = given[name]
        return given


class Shown(NamedTuple):
    """A passage as prompts show it."""

    title: str
    text: str


def shown(contexts: Sequence[ContextRecord]) -> list[Shown]:
    """Passages as prompts show them."""
    return [Shown(context.title, context.text) for context in contexts]


class QAQuestion(Record):
    """An open-domain question; files of DPR and FlashRAG are read as they are, what else is there is read over.

    Args:
        id: unique in its source; its position when missing.
        question: what is asked.
        answers: any of which is right; ``golden_answers`` and ``answer`` (a text or a list) are the same.
        contexts: passages, best first; ``ctxs`` (DPR) and ``retrieval_result`` (FlashRAG) are the same.
        gold_ids: of the passages that answer it.
        type: of question, for tables.
        domain: likewise.
    """

    model_config = ConfigDict(extra="ignore")

    id: Id | None = None
    question: Text
    answers: list[Text] | None = None
    contexts: list[ContextRecord] | None = None
    gold_ids: list[Id] | None = None
    type: str | None = None
    domain: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_others_write_it(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        output = data["output"] if isinstance(data.get("output"), dict) else {}
        given = {name: value for name, value in (output | data).items() if value is not None}
        spellings = {
            "id": ("_id",),
            "answers": ("golden_answers", "answer"),
            "contexts": ("ctxs", "retrieval_result"),
        }
        for ours, others in spellings.items():
            if ours not in given and (name := next((name for name in others if name in given), None)):
                given[ours] = given[name]
        if isinstance(given.get("answers"), str):
            given["answers"] = [given["answers"]]
        return given

    @field_validator("answers")
    @classmethod
    def _at_least_one(cls, answers: list[str] | None) -> list[str] | None:
        if answers == []:
            raise PydanticCustomError("no_answers", "empty: give the right answers, or leave the field out")
        return answers

    @field_validator("contexts")
    @classmethod
    def _different_ids(cls, contexts: list[ContextRecord] | None) -> list[ContextRecord] | None:
        ids = [context.id for context in contexts or () if context.id]
        if twice := next((id for place, id in enumerate(ids) if id in ids[:place]), None):
            raise PydanticCustomError("same_id", "two passages have the id '{id}'", {"id": twice})
        return contexts


class TaskRecord(ChatRecord):
    """One task of the pipeline with what is to be written: by hand, by a world, or by a stronger model.

    Args:
        task: ``answer``, ``candidates`` and ``summary`` read the passages; ``validity`` and ``ranking`` summaries.
        question: what is asked.
        contexts: passages, best first.
        candidates: that the summary chooses among.
        prediction: that the summary supports, or whose validity is asked.
        summaries: one for ``validity``, two for ``ranking``.
        target: an answer, "(a) ..., (b) ...", a summary, "True" or "False", "Passage 1" or "Passage 2".
        prompt: made of the others by whoever has the words (datamodules/qa_tasks.py).
    """

    task: Task
    question: Text
    contexts: list[ContextRecord] = Field(default_factory=list)
    candidates: list[Text] = Field(default_factory=list)
    prediction: Text | None = None
    summaries: list[Text] = Field(default_factory=list)
    target: Text

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        given["prompt"] = given.get("question", "")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> TaskRecord:
        needed = {"candidates": self.task == "summary", "prediction": self.task in ("summary", "validity")}
        for name, wanted in needed.items():
            if wanted and not getattr(self, name):
                raise PydanticCustomError("incomplete_task", f"a task '{self.task}' needs '{name}'")
        summaries = {"validity": 1, "ranking": 2}.get(self.task, 0)
        if len(self.summaries) != summaries:
            told = f"a task '{self.task}' needs {summaries} 'summaries', not {len(self.summaries)}"
            raise PydanticCustomError("incomplete_task", told)
        verdicts = {"validity": parse_validity, "ranking": parse_ranking}
        if self.task in verdicts and verdicts[self.task](self.target) is None:
            raise PydanticCustomError(
                "incomplete_task", "'target' is no verdict on a task '{task}'", {"task": self.task}
            )
        if self.task == "summary" and self.prediction not in self.candidates:
            raise PydanticCustomError("incomplete_task", "'prediction' must be one of 'candidates'")
        return self
