"""The record types of answers that cite: what a model learns to write, and what it is asked (arXiv 2403.09024).

A record checks itself and says which field is wrong; where the line stood is the reader's business
(datamodules/records.py). Whether the passages that it names are there is seen where the corpus is known
(datamodules/cited.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from text.citing.alce import from_alce
from text.qa.qa_records import QAQuestion
from text.records import Id, Record, Text


class Segment(Record):
    """A part of an answer.

    Args:
        text: its words.
        retrieve: id of the passage that is looked up before they are written, and that they cite; without one they are
            free text.
    """

    text: Text
    retrieve: Id | None = None


class CitedAnswer(Record):
    """A question and the answer to learn, segment by segment; what else is there is read over.

    A question with ``answers`` and ``gold_ids`` instead is answered in one segment: the first answer, citing the first
    of these passages.

    Args:
        id: unique in its source.
        task: names the template of the question; null is what the data module is told that records are of.
        question: what is asked.
        segments: the answer in order.
        hard_negatives: ids of passages that do not help, though they look as if.
        group_id: questions that batches may hold side by side.
        domain: metrics are told apart by it.
    """

    model_config = ConfigDict(extra="ignore")

    id: Id
    task: Text | None = None
    question: Text
    segments: list[Segment] = Field(min_length=1)
    hard_negatives: list[Id] = Field(default_factory=list)
    group_id: Id | None = None
    domain: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_question(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "segments" in data or "answers" not in data:
            return data
        answers, gold = data["answers"], data.get("gold_ids")
        if not isinstance(answers, list) or not answers or not isinstance(gold, list) or not gold:
            raise PydanticCustomError(
                "no_segments", "give 'segments', or 'answers' and 'gold_ids', lists with one entry at least"
            )
        return data | {"segments": [{"text": answers[0], "retrieve": gold[0]}]}

    @field_validator("hard_negatives")
    @classmethod
    def _no_positive(cls, negatives: list[str], info: ValidationInfo) -> list[str]:
        cited = {segment.retrieve for segment in info.data.get("segments", [])}
        if wrong := next((id for id in negatives if id in cited), None):
            raise PydanticCustomError("negative_is_cited", "'{id}' is a passage that the answer cites", {"id": wrong})
        return negatives

    @property
    def cited(self) -> list[str]:
        """Ids of the passages, in the order in which they are looked up."""
        return [segment.retrieve for segment in self.segments if segment.retrieve is not None]

    def words(self) -> Iterator[tuple[str, str]]:
        """The user's words by the name of their field."""
        yield "question", self.question
        yield from ((f"segments[{n}].text", segment.text) for n, segment in enumerate(self.segments))


class OpenQuestion(QAQuestion):
    """A question of open-domain question answering, to be answered with citations.

    Records of KILT (``input``, ``output``) and of ALCE (``qa_pairs``, ``claims``, ``docs``) are read as such.

    Args:
        id: unique in its source; its position when missing.
        task: names the template of the question, and the set; null is what the data module is told that records are of.
        answers: right ones; any of them counts. Only a test needs them.
        gold_ids: ids of passages that support them.
        long_answer: a reference in sentences.
        short_answers: right ones of each sub-question, where there are some.
        claims: that an answer should entail.
        candidate_ids: the only passages that may be found; null is the whole corpus.
    """

    task: Text | None = None
    answers: list[Text] = Field(default_factory=list)
    gold_ids: list[Id] = Field(default_factory=list)
    long_answer: Text | None = None
    short_answers: list[Annotated[list[Text], Field(min_length=1)]] = Field(default_factory=list)
    claims: list[Text] = Field(default_factory=list)
    candidate_ids: list[Id] | None = Field(None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_benchmarks(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if "input" in data and "question" not in data and "answers" not in data:
            return _from_kilt(data)
        return from_alce(data) if {"qa_pairs", "claims", "docs"} & data.keys() else data

    def words(self) -> Iterator[tuple[str, str]]:
        """The user's words by the name of their field."""
        yield "question", self.question


def _from_kilt(data: dict[str, Any]) -> dict[str, Any]:
    """KILT (arXiv 2009.02252): outputs are answers, provenances, or both; a passage is a page of Wikipedia."""
    outputs = data.get("output") or []  # which hidden test sets lack
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise PydanticCustomError("no_kilt", "field 'output': must be a list of objects, as in KILT")
    pages = [page for output in outputs for page in output.get("provenance") or () if isinstance(page, dict)]
    known: dict[str, Any] = {"question": data["input"]}
    if answers := [output["answer"] for output in outputs if output.get("answer")]:
        known["answers"] = answers
    known["gold_ids"] = list(dict.fromkeys(page["wikipedia_id"] for page in pages if page.get("wikipedia_id")))
    return {name: value for name, value in data.items() if name not in ("input", "output")} | known
