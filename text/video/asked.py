"""What is asked of a record about a video: each question for itself, or the turns of a conversation.

With each goes what is written beside its answer. Knows records; it does not know how prompts become tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from text.chat.messages import Message, Prompt
from text.errors import DataFormatError
from text.records import Located
from text.video.published import FAMILIES, Family
from text.video.video_records import VideoRecord


def asked_alone(one: Located[VideoRecord]) -> list[tuple[dict[str, Any], Prompt]]:
    """What is asked of a record, each with what goes along to its answer."""
    record = one.record
    if record.form != "questions":
        if not isinstance(record.prompt, list):
            raise DataFormatError([f"{one.where}: field 'prompt': missing"])
        said = {} if record.spoken is None else {"answer": record.spoken.content}
        kind = record.aspect or record.task
        asked = [turn.said() for turn in record.prompt]
        prompt: Prompt = record.prompt[0].content if record.form == "prompt" else record.prompt
        return [({"id": one.name, **_shown(record), "prompt": asked, "type": kind, **said}, prompt)]
    found: list[tuple[dict[str, Any], Prompt]] = []
    for number, q in enumerate(record.questions):
        told = {"id": f"{one.name}#{q.id or number}", **_shown(record), "prompt": q.asked}
        told["type"] = q.type or record.aspect or (file_of(one) if record.by_file else None)
        if q.answer is not None:
            told["answer"] = q.shown(q.answer)
        if q.rephrases is not None:
            told["rephrases"] = f"{one.name}#{q.rephrases}"
        found.append((told, q.asked))
    return found


def asked_in_turn(one: Located[VideoRecord]) -> list[dict[str, Any]]:
    """What a user asks in a conversation about a record, turn by turn, with what goes along to the answers.

    Raises:
        DataFormatError: for messages in which not a user and an assistant speak in turn.
    """
    record = one.record
    if record.form == "questions":
        return [told for told, _ in asked_alone(one)]
    said = [turn for turn in [*record.prompt, record.spoken] if isinstance(turn, Message) and turn.role != "system"]
    if any(turn.role != ("user", "assistant")[number % 2] for number, turn in enumerate(said)):
        raise DataFormatError([f"{one.where}: field 'messages': a conversation is of a user and an assistant in turn"])
    found = []
    for number in range(0, len(said), 2):
        answer = {"answer": said[number + 1].content} if number + 1 < len(said) else {}
        told = {"id": f"{one.name}#{number // 2}", **_shown(record), "prompt": said[number].content}
        found.append(told | {"type": record.aspect or record.task} | answer)
    return found


def last_words(prompt: Any) -> str:
    """What is asked last of a prompt that goes along to an answer: a text, or messages as plain records."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def file_of(one: Located[VideoRecord]) -> str:
    """The name of the file in which a record stands, without its ending."""
    return Path(one.where.rpartition(":")[0]).name.partition(".")[0]


def require_one_family(families: dict[str, Family], one: Located[VideoRecord]) -> None:
    """Refuse a file that has records of two formats: one of them is read otherwise than whoever wrote it thinks.

    Args:
        families: of the files so far; kept up to date.
        one: the next record.

    Raises:
        DataFormatError: naming both formats.
    """
    family, file = one.record.family, one.where.rpartition(":")[0]
    if (first := families.setdefault(file, family)) != family:
        told = f"the format of this record is {FAMILIES[family]}; that of the records before it is {FAMILIES[first]}"
        raise DataFormatError([f"{one.where}: {told}: give each a file of its own"])


def system_of(record: VideoRecord) -> str | None:
    """The system message, wherever it stands."""
    turns = [turn for turn in record.prompt if isinstance(turn, Message) and turn.role == "system"]
    return record.system or (turns[0].content if turns else None)


def words_of(record: VideoRecord) -> list[str]:
    """All that is asked."""
    turns = record.prompt if isinstance(record.prompt, list) else []
    return [*(question.asked for question in record.questions), *(turn.content for turn in turns)]


def _shown(record: VideoRecord) -> dict[str, Any]:
    return {"video": record.video, **({"meta": record.meta} if record.meta else {})}
