"""Records of videos: questions about one, or a conversation about it; or text alone, to be mixed in.

Says which field is wrong and why. It does not open a video, nor know which questions share a batch.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator
from pydantic_core import PydanticCustomError

from text.chat.chat_records import ChatRecord
from text.chat.messages import Message, Prompt, blame, read_messages, require_prompt
from text.records import Id, Record, Text
from text.video.options import LETTERS, letter_named, lettered, wrong_option
from text.video.published import Family, read_published

PLACEHOLDER = re.compile(r"\s*<(?:video|image)>\s*")  # where LLaVA's records put what is seen
CONVERSATIONS = ("messages", "conversations")
ASKED = ("prompt", "instruction")
Seconds = Annotated[FiniteFloat, Field(ge=0)]
Form = Literal["questions", "messages", "prompt"]


class Question(Record):
    """A question about a video, asked for itself.

    Args:
        id: unique in its record; its number when missing.
        question: what is asked.
        answer: what is right; with ``options`` it is one of them, or its letter.
        rejected: a worse answer, for preference learning.
        type: groups metrics; ``aspect`` is the same.
        options: of which one is chosen; they are shown below the question, A, B, ...
        rephrases: id of an earlier question of the record that this one asks in other words: their answers are judged
            together.
    """

    id: Id | None = None
    question: Text
    answer: Text | None = None
    rejected: Text | None = None
    type: str | None = None
    options: list[Text] = Field(default_factory=list, max_length=len(LETTERS))
    rephrases: Id | None = None

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> Self:
        if len(set(self.options)) < len(self.options):
            twice = next(option for option in self.options if self.options.count(option) > 1)
            raise PydanticCustomError("same_option", "'options': {what} is there twice", {"what": f"{twice!r:.40}"})
        for name in ("answer", "rejected"):
            if (given := getattr(self, name)) is not None and (wrong := self._wrong(given)) is not None:
                raise PydanticCustomError("wrong_option", "{what}", {"what": f"'{name}': {wrong}"})
        if (
            self.answer is not None
            and self.rejected is not None
            and self.shown(self.answer) == self.shown(self.rejected)
        ):
            raise PydanticCustomError("no_worse", "'rejected' is the answer itself: give a worse one, or leave it out")
        return self

    def _wrong(self, given: str) -> str | None:
        if not self.options:
            return wrong_option(given, self.question)
        named = given in self.options or letter_named(given, lettered(self.options)) is not None
        last = LETTERS[len(self.options) - 1]
        return None if named else f"{given!r:.40} is no option and no letter from A to {last}"

    @property
    def asked(self) -> str:
        """The question as it is shown, with its options."""
        return "\n".join([self.question, *(f"{letter}. {text}" for letter, text in lettered(self.options).items())])

    def shown(self, answer: str) -> str:
        """An answer as it is learnt: an option with its letter."""
        if not self.options:
            return answer
        exact = LETTERS[self.options.index(answer)] if answer in self.options else None
        letter = exact or letter_named(answer, lettered(self.options))
        assert letter is not None  # else the question would have been refused
        return f"{letter}. {self.options[LETTERS.index(letter)]}"


class Speech(Record):
    """What is said in a video.

    Args:
        start: seconds.
        end: seconds.
        text: what is said.
    """

    start: Seconds
    end: Seconds
    text: Text

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end < self.start:
            told = f"'end' is {self.end:g}, and 'start' is {self.start:g}: it must not be earlier"
            raise PydanticCustomError("backwards", "{what}", {"what": told})
        return self


class VideoRecord(ChatRecord):
    """Questions or a conversation about a video; without a video, text alone.

    Read as they are: LLaVA's ``conversations`` of ``from`` and ``value``, whose placeholder may stand anywhere in the
    first turn: what is seen comes at its beginning; and what `text.video.published` reads.

    Args:
        video: a file; or image files in order, which need ``fps``. ``image`` is a video of one frame.
        start, end: of the part that is looked at, seconds; all of it by default.
        fps: of a list of images.
        questions: asked one by one, each as if it were the only one.
        spoken: the last answer of a conversation; ``prompt`` is what comes before it.
        transcript: what is said, in the order of time; shown as text.
        task: groups metrics.
        aspect: likewise, of questions without a type.
        meta: goes along to answers.
        form: how the record was written.
        family: whose format that is.
        by_file: kinds of questions are the names of files, as in MVBench and Video-ChatGPT.
    """

    prompt: Prompt = ""
    video: Text | list[Text] | None = None
    start: Seconds = 0.0
    end: Seconds | None = None
    fps: Annotated[FiniteFloat, Field(gt=0)] | None = None
    questions: list[Question] = Field(default_factory=list)
    spoken: Message | None = Field(None, exclude=True)
    transcript: list[Speech] = Field(default_factory=list)
    task: str | None = None
    aspect: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)
    form: Form = Field("prompt", exclude=True)
    family: Family = Field("ours", exclude=True)
    by_file: bool = Field(False, exclude=True)

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        if "image" in given:
            if "video" in given:
                blame("image", "given, and 'video' too: one record shows one thing")
            given["video"] = given.pop("image")
        given["by_file"] = bool(given.keys() & {"candidates", "Q"})
        given["family"] = read_published(given)
        ways = [name for name in ("questions", *CONVERSATIONS, *ASKED) if name in given]
        if len(ways) != 1:
            told = f"given, and '{ways[0]}' too" if ways else "missing"
            blame(ways[1] if ways else "questions", f"{told}: give 'questions', 'messages' or 'prompt', one of them")
        (way,) = ways
        if way == "questions":
            given["form"] = "questions"
            return
        turns = given.pop(way)
        if way in CONVERSATIONS:
            spoken = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
            theirs = ["from" in turn for turn in spoken]
            if any(theirs) and not all(theirs):
                blame(way, "turns with 'from' and turns with 'role' in one conversation: one of them")
            given["form"], given["family"] = "messages", "llava" if any(theirs) else "ours"
        else:
            answer = next((given.pop(name) for name in ("output", "answer", "completion") if name in given), None)
            turns = [{"role": "user", "content": turns}]
            turns += [] if answer is None else [{"role": "assistant", "content": answer}]
            given["form"] = "prompt"
        cls._read_turns(given, read_messages(turns, way), way)

    @classmethod
    def _read_turns(cls, given: dict[str, Any], messages: list[Message], field: str) -> None:
        marks = sum(len(PLACEHOLDER.findall(message.content)) for message in messages)
        if marks and "video" not in given:
            blame(field, "names a <video>, and the record has none")
        if marks > 1:
            blame(field, f"names {marks} videos; a record shows one, at the beginning of its first question")
        for asked, said in pairwise(messages):
            if said.role == "assistant" and (wrong := wrong_option(said.content, asked.content)) is not None:
                blame(field, f"the answer {wrong}")
        plain = [m.model_copy(update={"content": _without_mark(m.content)}) for m in messages] if marks else messages
        if plain[-1].role == "assistant":
            given["spoken"] = plain.pop()
        given["prompt"] = require_prompt(plain, field)

    @field_validator("questions")
    @classmethod
    def _different_ids(cls, questions: list[Question]) -> list[Question]:
        names = [question.id or str(number) for number, question in enumerate(questions)]
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise PydanticCustomError("same_id", "two have the id '{id}' (without one it is its number)", {"id": twice})
        return questions

    @field_validator("transcript")
    @classmethod
    def _in_order(cls, transcript: list[Speech]) -> list[Speech]:
        for one, other in pairwise(transcript):
            if other.start < one.start:
                raise PydanticCustomError("unsorted", "is not in the order of time")
        return transcript

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.form == "questions" and not self.questions:
            blame("questions", "must not be empty")
        for number, question in enumerate(self.questions):
            if question.rephrases is not None and question.rephrases not in [q.id for q in self.questions[:number]]:
                blame("questions", f"[{number}].rephrases: no earlier question has the id '{question.rephrases}'")
        if self.end is not None and self.end <= self.start:
            blame("end", f"is {self.end:g}, and 'start' is {self.start:g}: it must be later")
        if isinstance(self.video, list) and self.fps is None:
            blame("fps", "missing: a list of images needs the rate at which they were taken")
        if self.video == []:
            blame("video", "is a list without images")
        if self.video is None and (self.start or self.end is not None):
            blame("start" if self.start else "end", "given, and there is no video")
        return self

    @property
    def speech(self) -> str:
        """What is said in the part that is looked at, as text; its times, too, begin with that part. '' if nothing is.

        A line that goes on behind the part, or began before it, is told whole, with its times cut to the part.
        """
        end = math.inf if self.end is None else self.end
        lines = [
            f"Speech [{max(line.start - self.start, 0):.1f}-{min(line.end, end) - self.start:.1f}]: {line.text}"
            for line in self.transcript
            if line.start < end and (line.end > self.start or line.start >= self.start)
        ]
        return "\n".join(lines)


def _without_mark(text: str) -> str:
    """A text without the placeholder, whose neighbours stay two words."""
    return " ".join(part for part in PLACEHOLDER.split(text) if part) if PLACEHOLDER.search(text) else text


def with_speech(prompt: Prompt, speech: str) -> Prompt:
    """A prompt with the transcript before the first words of the user."""
    if not speech:
        return prompt
    if isinstance(prompt, str):
        return f"{speech}\n{prompt}"
    first = next((number for number, turn in enumerate(prompt) if turn.role == "user"), 0)
    told = prompt[first].model_copy(update={"content": f"{speech}\n{prompt[first].content}"})
    return [*prompt[:first], told, *prompt[first + 1 :]]
