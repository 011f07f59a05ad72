"""Messages of a conversation: what one is, and which lists of them are one.

Says which field is wrong and why. It does not know templates (lm/chat.py), nor what a conversation is used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from text.records import Record

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Message(Record):
    """One turn of a conversation.

    Args:
        role: who speaks.
        content: what is said.
    """

    role: Role
    content: str


Prompt = str | list[Message]


def blame(field: str, what: str, given: Any = None) -> NoReturn:
    """Refuse a record because of one of its fields."""
    problem = PydanticCustomError("wrong_form", "{what}", {"what": what})
    raise ValidationError.from_exception_data("", [InitErrorDetails(type=problem, loc=(field,), input=given)])


def read_messages(value: Any, field: str, wanted: str = "") -> list[Message]:
    """A list as the messages that it should be: a system message at most, then user and assistant in turn.

    Keys beside 'role' and 'content' are read over.

    Args:
        value: what stands in the field.
        field: its name.
        wanted: what would have been right too.

    Raises:
        ValidationError: naming the field and the message.
    """
    if not isinstance(value, list) or not value:
        blame(field, f"should be {wanted}a list of messages {{'role', 'content'}}, not {value!r:.60}")
    messages = [_message(item, number, field) for number, item in enumerate(value)]
    for number, message in enumerate(messages):
        if message.role == "system" and number:
            blame(field, f"[{number}].role: a system message can only be the first one")
        if number and message.role == messages[number - 1].role:
            blame(field, f"[{number}].role: '{message.role}' twice in a row; user and assistant speak in turn")
    return messages


def _message(item: Any, number: int, field: str) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, dict):
        blame(field, f"[{number}]: should be a message {{'role', 'content'}}, not {item!r:.60}")
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or role not in ROLES:
        blame(field, f"[{number}].role: should be 'system', 'user' or 'assistant', not {role!r:.60}")
    if not isinstance(content, str):
        blame(field, f"[{number}].content: should be text, not {content!r:.60}")
    return Message(role=role, content=content)


def read_prompt(value: Any, field: str) -> Prompt:
    """Text, or messages that a user ends.

    Raises:
        ValidationError: for anything else.
    """
    if isinstance(value, str):
        return value
    return require_prompt(read_messages(value, field, "text or "), field)


def require_prompt(messages: list[Message], field: str) -> list[Message]:
    """Messages that begin with a user's (after a system message) and end with one."""
    spoken = [message.role for message in messages if message.role != "system"]
    if not spoken or spoken[-1] != "user":
        blame(field, "the last message of a prompt is the user's: who answers comes in the field of the answer")
    if spoken[0] != "user":
        blame(field, "a conversation begins with the user, after a system message if there is one")
    return messages


def read_answer(value: Any, field: str) -> str:
    """Text, or a list of exactly one message of the assistant.

    Raises:
        ValidationError: for anything else.
    """
    if isinstance(value, str):
        return value
    messages = read_messages(value, field, "text or ")
    if [message.role for message in messages] != ["assistant"]:
        blame(field, "should be text or a list of exactly one message of the assistant")
    return messages[0].content


def read_exchange(value: Any, field: str) -> tuple[list[Message], str]:
    """A whole conversation as its prompt and the assistant's last message.

    Raises:
        ValidationError: unless the assistant has the last word.
    """
    messages = read_messages(value, field)
    if messages[-1].role != "assistant":
        blame(field, f"[{len(messages) - 1}].role: the last message is the assistant's, not '{messages[-1].role}'")
    return require_prompt(messages[:-1], field), messages[-1].content


def spoken_before(one: Sequence[Message], other: Sequence[Message]) -> list[Message]:
    """What two conversations have in common from their beginning, up to the last message of a user."""
    common: list[Message] = []
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        common.append(left)
    while common and common[-1].role != "user":
        common.pop()
    return common
