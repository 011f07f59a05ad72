"""What is learnt of a record about a video: answers to its questions, or those of the assistant in a conversation.

Knows records; it does not know how they become tokens, nor which of them share a batch.
"""

from __future__ import annotations

from typing import NamedTuple

from text.chat.messages import Message, Prompt
from text.errors import DataFormatError
from text.records import Located
from text.video.video_records import Question, VideoRecord


class Learnt(NamedTuple):
    """An answer that is learnt.

    Args:
        name: of the answer: that of the record, or of the question within it.
        prompt: what comes before.
        answer: as it is learnt.
        kind: groups metrics; '' where the record names none.
    """

    name: str
    prompt: Prompt
    answer: str
    kind: str


def learnt_of(one: Located[VideoRecord]) -> list[Learnt]:
    """All that is learnt of a record, in order.

    Raises:
        DataFormatError: for a question without an answer, or a conversation in which nobody answers.
    """
    record = one.record
    name, kind = record.id or one.where, record.aspect or record.task or ""
    if record.form == "questions":
        lacking = [str(number) for number, question in enumerate(record.questions) if question.answer is None]
        if lacking:
            raise DataFormatError([f"{one.where}: field 'questions': [{lacking[0]}].answer: missing"])
        return [
            Learnt(_name_of(one, number, q), q.asked, q.shown(q.answer or ""), q.type or kind)
            for number, q in enumerate(record.questions)
        ]
    if record.spoken is None:
        raise DataFormatError([f"{one.where}: no answer of the assistant to learn from"])
    turns = record.prompt if isinstance(record.prompt, list) else [Message(role="user", content=record.prompt)]
    if record.form == "prompt":
        return [Learnt(name, turns[0].content, record.spoken.content, kind)]
    earlier = [
        Learnt(f"{name}#{number}", turns[:number], turn.content, kind)
        for number, turn in enumerate(turns)
        if turn.role == "assistant" and turn.trained
    ]
    return [*earlier, Learnt(name, turns, record.spoken.content, kind)]


def worse_of(one: Located[VideoRecord]) -> dict[str, str]:
    """The worse answers of a record as they are shown, by the names that `learnt_of` gives their questions."""
    return {
        _name_of(one, number, q): q.shown(q.rejected) for number, q in enumerate(one.record.questions) if q.rejected
    }


def _name_of(one: Located[VideoRecord], number: int, question: Question) -> str:
    return f"{one.record.id or one.where}#{question.id or number}"
