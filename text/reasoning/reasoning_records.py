"""Records of reasoning: questions, solutions that were sampled, pairs that were mined, probes of a wrong solution.

Each stage of Self-Explore writes what the next one reads (arXiv 2404.10346, section 3; docs/self_explore.md, records).
This file does not know how any of it is made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from text.chat.chat_records import ChatRecord, PreferenceRecord, Tokens
from text.chat.messages import blame
from text.errors import DataFormatError
from text.reasoning.answers import AnswerChecker, last_boxed
from text.reasoning.numbers import tidy
from text.reasoning.stated_numbers import whole_number
from text.reasoning.steps import ANSWER, up_to_answer
from text.records import Id, Record, Text

_MARKER = re.compile(r"^#### *", re.MULTILINE)


class QuestionRecord(ChatRecord):
    """A question, and what is known of its solution.

    Files of GSM8K (``question``, ``answer`` that ends in ``#### 72``) and MATH (``problem``, ``solution``, ``answer``)
    are read as they are: an ``answer`` beside a solution, or without the form of one, is the right answer.

    Args:
        id: ``unique_id`` is the same.
        prompt: made of the question: it stands on a line of its own, and nothing is added.
        question: ``query`` and ``problem`` are the same.
        rationale: a solution that ends in the right answer; ``response`` and ``solution`` are the same.
        gold: the right answer, where it is not to be found in the rationale.
        subject: what MATH calls ``type``.
        level: how hard it is.
    """

    question: Text
    rationale: Text | None = None
    gold: Text | None = None
    subject: str | None = None
    level: int | str | None = None

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        _take(given, "id", "unique_id")
        _take(given, "subject", "type")
        _take(given, "question", "query", "problem")
        _take(given, "rationale", "response", "solution")
        answer = given.get("answer")
        worked_out = isinstance(answer, str) and (_MARKER.search(answer) or ANSWER in answer)
        _take(given, "rationale" if worked_out and "rationale" not in given else "gold", "answer")
        if isinstance(given.get("question"), str):
            given["prompt"] = f"{given['question'].strip()}\n"
        else:
            given["prompt"] = ""  # the question's own complaint says what is wrong

    def worked_out(self) -> str | None:
        """The rationale as it is taught: ``The answer is`` stands where GSM8K ends in ``####``, or MATH has a box."""
        if self.rationale is None:
            return None
        text = self.rationale.strip()
        for mark in reversed([*_MARKER.finditer(text)]):
            said, _, after = text[mark.end() :].partition("\n")
            if not after or whole_number(tidy(said)) is not None:  # any other begins a heading
                return f"{text[: mark.start()]}{ANSWER} {text[mark.end() :]}"
        boxed = None if ANSWER in text.rpartition("\n")[2] else last_boxed(text)
        return text if boxed is None else f"{text}\n{ANSWER} ${boxed}$."

    def right_answer(self, checker: AnswerChecker, where: str) -> str:
        """The answer that is told, or that its solution comes to.

        Args:
            checker: finds it in the solution, and must be able to read it.
            where: the record stands, for messages.

        Raises:
            DataFormatError: if there is none, or the checker cannot read it.
        """
        gold = self.gold or checker.extract(self.worked_out() or "")
        if gold is None or not checker.equal(gold, gold):
            what = "missing, and not found in a solution" if gold is None else f"'{gold}' cannot be read"
            raise DataFormatError([f"{where}: field 'gold': {what} by {checker!r} (data.checker names another)"])
        return gold


class Solution(Record):
    """What a model wrote, and whether it is right.

    Args:
        tokens: without the end token; none where the text is not all that was written.
        text: of the tokens.
        finish: whether the model ended it, or the limit of tokens did.
        answer: its final answer.
        correct: whether that is the right one.
    """

    tokens: Tokens = Field(default_factory=list)
    text: str
    finish: Literal["eos", "length"] = "eos"
    answer: str | None = None
    correct: bool

    @property
    def finished(self) -> bool:
        """Whether the model ended it."""
        return self.finish == "eos"

    def up_to_answer(self) -> Self:
        """The same without what was written after the line of the answer."""
        text = up_to_answer(self.text)
        cut = {} if text == self.text else {"text": text, "tokens": [], "finish": "eos"}
        return self.model_copy(update=cut)

    @classmethod
    def judged(
        cls, tokens: Sequence[int], text: str, finished: bool, gold: str | None, checker: AnswerChecker, **more: Any
    ) -> Self:
        """What was written, as the checker sees it: it ends with the line of the answer, if that has one.

        An answer that might have gone on where the limit of tokens cut it off is none.
        """

        def read(said: str) -> str | None:
            return checker.extract(up_to_answer(said)) or checker.extract(said)

        answer = read(text)
        if not finished and read(f"{text}7") != answer:
            answer = None
        return cls(
            tokens=[*tokens],
            text=text,
            finish="eos" if finished else "length",
            answer=answer,
            correct=checker.equal(gold, answer),
            **more,
        )


class SampledSolution(Solution):
    """A solution that was sampled from the question alone.

    Args:
        seed: of its draw.
    """

    seed: int = 0


class Completion(Solution):
    """The rest of a solution, sampled from its first steps.

    Args:
        draw: its number among the completions of these steps.
    """

    draw: int


class SampleRecord(Record):
    """A question and what a model tried.

    Args:
        id: of the question.
        question: as it was asked.
        gold: the right answer.
        rationale: a given solution, if there is one.
        subject: see QuestionRecord.
        level: see QuestionRecord.
        samples: in the order in which they were drawn.
        model: fingerprint of the checkpoint that drew them.
        decoding: how they were drawn.
        system: with which it was asked, if with any; see ChatRecord.
        tools: likewise.
        chat_template_kwargs: likewise.
    """

    id: Id
    question: Text
    gold: Text
    rationale: Text | None = None
    subject: str | None = None
    level: int | str | None = None
    samples: list[SampledSolution]
    model: str = ""
    decoding: dict[str, Any] = Field(default_factory=dict)
    system: str | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def success(self) -> float:
        """The share of right ones among the samples."""
        return sum(sample.correct for sample in self.samples) / max(len(self.samples), 1)


class AnswerRecord(Record):
    """What a model answered to a question.

    Args:
        id: of the question.
        answer: as the checker read it.
        gold: the right answer.
        correct: whether they are equal.
        subject: see QuestionRecord.
        level: see QuestionRecord.
        response: the whole text that the answer was read in.
        finish: whether the model ended it, or the limit of tokens did.
        further: the other samples of the question, where there are several.
    """

    id: Id
    answer: str | None = None
    gold: Text
    correct: bool
    subject: str | None = None
    level: int | str | None = None
    response: str | None = None
    finish: Literal["eos", "length"] = "eos"
    further: list[Solution] | None = None

    @classmethod
    def first(cls, record: SampleRecord) -> Self:
        """Of the first sample, the others beside it."""
        sample, *further = record.samples
        return cls(
            **record.model_dump(include={"id", "gold", "subject", "level"}),
            answer=sample.answer,
            correct=sample.correct,
            response=sample.text,
            finish=sample.finish,
            further=[one.model_copy(update={"tokens": []}) for one in further] or None,
        )


class MinedPair(PreferenceRecord):
    """A right and a wrong solution of one question, or the right and the wrong way to go on from its first steps.

    A preference pair in every respect.

    Args:
        question_id: of the question; pairs of one question are one group.
        gold: the right answer.
        kind: `outcome`: whole solutions; `granular`: from the step before the first pit.
        pit: the rejected step, counted from 1.
        num_steps: of the wrong solution.
    """

    question_id: Id | None = None
    gold: Text | None = None
    kind: Literal["outcome", "granular"] = "outcome"
    num_steps: Annotated[int, Field(ge=1)] | None = None
    pit: Annotated[int, Field(ge=1)] | None = None

    @field_validator("pit")
    @classmethod
    def _one_of_the_steps(cls, pit: int | None, info: ValidationInfo) -> int | None:
        if pit is not None and (steps := info.data.get("num_steps")) is not None and pit > steps:
            raise PydanticCustomError("pit_too_late", "{pit}, but 'num_steps' is {n}", {"pit": pit, "n": steps})
        return pit


class StepProbe(Record):
    """What became of a solution after its first steps.

    Args:
        step: how many steps were given.
        completions: in the order of their draws.
    """

    step: Annotated[int, Field(ge=1)]
    completions: list[Completion]

    @property
    def success(self) -> bool:
        """Whether the right answer was reached."""
        return any(completion.correct for completion in self.completions)


class ExplorationRecord(Record):
    """How far a wrong solution can still be saved.

    Args:
        pair_id: of the pair whose rejected solution was explored.
        steps: of the rejected solution.
        ends: for each step how many tokens of the solution there are to the end of its words, and to its own end.
        moved: how many of these ends lie within a token, and were moved to its end.
        probes: those that were made, by step.
        pit: the first step after which no completion was right.
        status: `pit`; `no_pit`; `format`: there is nothing to explore; `too_long`: no room for a completion.
    """

    pair_id: Id
    steps: list[str]
    ends: list[Annotated[tuple[int, int], Field(strict=False)]] = Field(default_factory=list)  # JSON has lists alone
    moved: int = 0
    probes: list[StepProbe] = Field(default_factory=list)
    pit: int | None = None
    status: Literal["pit", "no_pit", "format", "too_long"]


def asked_with(record: Record) -> dict[str, Any]:
    """What a question is asked with beside its words, if anything: it goes along to its samples and their pairs."""
    return record.model_dump(include={"system", "tools", "chat_template_kwargs"}, exclude_unset=True, exclude_none=True)


def _take(given: dict[str, Any], ours: str, *others: str) -> None:
    """Put what goes by another name under ours, in place; two names are one too many."""
    for other in others:
        if other in given:
            if ours in given:
                blame(other, f"given, and '{ours}' too: one thing, one name")
            given[ours] = given.pop(other)
