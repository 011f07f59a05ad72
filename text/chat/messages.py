"""Messages of a conversation: what one is, and which lists of them are one.

Says which field is wrong and why. It does not know templates (lm/tokens/chat.py), nor what a conversation is used for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from pydantic import Field, ValidationError, model_serializer
from pydantic_core import InitErrorDetails, PydanticCustomError

from text.records import Record

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
SHAREGPT: dict[str, Role] = {  # who speaks in lists of {'from', 'value'}
    **{role: role for role in ROLES},
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
FOLLOWS: dict[str, tuple[Role, ...]] = {  # who may speak after whom
    "system": ("user", "assistant"),  # the latter is refused where it matters, in a prompt
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
REASONING = ("reasoning_content", "thinking", "reasoning")  # names of one thing, as in transformers
WEIGHTS = ("weight", "train", "training")  # likewise
KNOWN = {"role", "content", "name", "tool_calls", "tool_call_id", *REASONING, *WEIGHTS}


class Message(Record):
    """One turn of a conversation.

    Args:
        role: who speaks.
        content: what is said.
        name: of who speaks, or of the tool.
        tool_calls: functions that the assistant calls: ``{"type": "function", "function": {"name", "arguments"}}``.
        tool_call_id: of the call that a tool answers.
        reasoning_content: what the assistant thought before; ``thinking`` and ``reasoning`` are the same.
        trained: whether an answer is learnt, where all answers of a conversation are; ``weight`` 0 or 1, ``train`` and
            ``training`` say so in files.
        read_over: keys that mean nothing here.
    """

    role: Role
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    trained: bool = True
    read_over: tuple[str, ...] = ()

    def said(self) -> dict[str, Any]:
        """The message as a template sees it: without what is not there."""
        optional = {"name": self.name, "tool_calls": self.tool_calls, "tool_call_id": self.tool_call_id}
        optional["reasoning_content"] = self.reasoning_content
        return {"role": self.role, "content": self.content} | {key: told for key, told in optional.items() if told}

    @property
    def is_plain(self) -> bool:
        """Whether its content is all that is said."""
        return not self.tool_calls and not self.reasoning_content and not self.name

    @property
    def answer(self) -> str | Message:
        """The content, or the message if it says more."""
        return self.content if self.is_plain else self

    @model_serializer
    def _as_read(self) -> dict[str, Any]:
        return self.said() | ({} if self.trained else {"weight": 0})


Prompt = str | list[Message]


@dataclass(frozen=True)
class TemplateInputs:
    """What a chat template is given beside the messages.

    Args:
        tools: that the assistant may call, as JSON schemas.
        arguments: variables of the template, such as ``enable_thinking``.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


NO_INPUTS = TemplateInputs()


def blame(field: str, what: str, given: Any = None) -> NoReturn:
    """Refuse a record because of one of its fields."""
    problem = PydanticCustomError("wrong_form", "{what}", {"what": what})
    raise ValidationError.from_exception_data("", [InitErrorDetails(type=problem, loc=(field,), input=given)])


def read_messages(value: Any, field: str, wanted: str = "") -> list[Message]:
    """A list as the messages that it should be: a system message at most, then user and assistant in turn.

    Between two messages of the user, the assistant may call tools, which answer with messages of their own. Keys that
    are not known are read over, and kept by name.

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
        if not number:
            if message.role == "tool":
                blame(field, "[0].role: a tool answers a call of the assistant")
            continue
        before = messages[number - 1].role
        if message.role == "system":
            blame(field, f"[{number}].role: a system message can only be the first one")
        if message.role not in FOLLOWS[before]:
            told = "twice in a row" if message.role == before else f"after '{before}'"
            tools = ", and tools after the assistant" * ("tool" in (before, message.role))
            blame(field, f"[{number}].role: '{message.role}' {told}; user and assistant speak in turn{tools}")
    return messages


def _of_sharegpt(given: dict[str, Any], place: str, field: str) -> dict[str, Any]:
    """A message {'from', 'value'} with our keys."""
    speaker = given.pop("from")
    if not isinstance(speaker, str) or speaker not in SHAREGPT:
        blame(field, f"{place}.from: should be one of {', '.join(SHAREGPT)}, not {speaker!r:.60}")
    if "value" in given and "content" in given:
        blame(field, f"{place}.value: given, and 'content' too: one thing, one name")
    return {"role": SHAREGPT[speaker]} | {"content" if key == "value" else key: said for key, said in given.items()}


def _message(item: Any, number: int, field: str) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, dict):
        blame(field, f"[{number}]: should be a message {{'role', 'content'}}, not {item!r:.60}")
    given = {key: value for key, value in item.items() if value is not None}  # columns of tables fill up with null
    if "from" in given and "role" not in given:
        given = _of_sharegpt(given, f"[{number}]", field)
    role, content = given.get("role"), given.get("content")
    if not isinstance(role, str) or role not in ROLES:
        blame(field, f"[{number}].role: should be 'system', 'user', 'assistant' or 'tool', not {role!r:.60}")
    calls = _tool_calls(given, f"[{number}]", field)
    if calls and role != "assistant":
        blame(field, f"[{number}].tool_calls: only the assistant calls tools")
    if calls and content is None:
        content = ""
    if not isinstance(content, str):
        blame(field, f"[{number}].content: should be text, not {content!r:.60}")
    reasoning = _one_of(given, REASONING, f"[{number}]", field)
    for key, text in (("name", given.get("name")), ("tool_call_id", given.get("tool_call_id")), reasoning):
        if text is not None and not isinstance(text, str):
            blame(field, f"[{number}].{key}: should be text, not {text!r:.60}")
    if reasoning[1] and role != "assistant":
        blame(field, f"[{number}].{reasoning[0]}: only the assistant reasons")
    return Message(
        role=role,  # type: ignore[arg-type]  # one of ROLES
        content=content,
        name=given.get("name"),
        tool_calls=calls,
        tool_call_id=given.get("tool_call_id"),
        reasoning_content=reasoning[1],
        trained=_trained(given, role, f"[{number}]", field),
        read_over=tuple(key for key in given if key not in KNOWN),
    )


def _one_of(given: dict[str, Any], names: tuple[str, ...], place: str, field: str) -> tuple[str, Any]:
    """The name of these that is given, and its value; the first one and None if there is none."""
    found = [name for name in names if name in given]
    if any(given[name] != given[found[0]] for name in found):
        blame(field, f"{place}.{found[1]}: given, and '{found[0]}' too: one thing, one name")
    return (found[0], given[found[0]]) if found else (names[0], None)


def _trained(given: dict[str, Any], role: str, place: str, field: str) -> bool:
    """Whether a message is learnt where all answers are."""
    key, value = _one_of(given, WEIGHTS, place, field)
    if value is None:
        return True
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        blame(field, f"{place}.{key}: should be 0 (not learnt) or 1, not {value!r:.60}")
    if value and role != "assistant":
        blame(field, f"{place}.{key}: only what the assistant says is learnt, and this is the {role}'s")
    return bool(value)


def _tool_calls(given: dict[str, Any], place: str, field: str) -> list[dict[str, Any]]:
    """Calls with a name and arguments; those that came as JSON are read, since templates write JSON themselves."""
    calls = _from_json(given.get("tool_calls")) or []
    if not isinstance(calls, list):
        blame(field, f"{place}.tool_calls: should be a list of calls, not {calls!r:.60}")
    read = []
    for number, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            what = "should be {'type': 'function', 'function': {'name', 'arguments'}}"
            blame(field, f"{place}.tool_calls[{number}]: {what}, not {call!r:.60}")
        arguments = _from_json(function.get("arguments", {}))
        function = function | {"arguments": {} if arguments is None else arguments}
        read.append({"type": "function", **(call if "function" in call else {}), "function": function})
    return read


def _from_json(value: Any) -> Any:
    """What a text tells in JSON; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def read_tools(value: Any, field: str) -> list[dict[str, Any]]:
    """Tools as JSON schemas, as a list or as JSON.

    Raises:
        ValidationError: for anything else.
    """
    tools = _from_json(value)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        blame(field, f"should be a list of tools, each a JSON schema, not {tools!r:.60}")
    return tools


def read_prompt(value: Any, field: str) -> Prompt:
    """Text, or messages that a user ends.

    Raises:
        ValidationError: for anything else.
    """
    if isinstance(value, str):
        return value
    return require_prompt(read_messages(value, field, "text or "), field)


def require_prompt(messages: list[Message], field: str) -> list[Message]:
    """Messages that begin with a user's (after a system message) and end with one, or with what a tool found."""
    spoken = [message.role for message in messages if message.role != "system"]
    if not spoken or spoken[-1] == "assistant":
        blame(field, "the last message of a prompt is the user's: who answers comes in the field of the answer")
    if spoken[0] != "user":
        blame(field, "a conversation begins with the user, after a system message if there is one")
    return messages


def read_spoken(value: Any, field: str) -> Message:
    """Text, or a list of exactly one message of the assistant, as this message.

    Raises:
        ValidationError: for anything else.
    """
    if isinstance(value, str):
        return Message(role="assistant", content=value)
    messages = read_messages(value, field, "text or ")
    if [message.role for message in messages] != ["assistant"]:
        blame(field, "should be text or a list of exactly one message of the assistant")
    return messages[0]


def plain_answer(message: Message, field: str) -> str:
    """The content of an answer that is all that is said.

    Raises:
        ValidationError: if it calls tools, reasons, has a name, or is not to be learnt.
    """
    further = {"tool_calls": message.tool_calls, "reasoning_content": message.reasoning_content, "name": message.name}
    if (key := next((key for key, told in further.items() if told), None)) is not None:
        blame(field, f"an answer with '{key}' can be learnt from instructions alone (docs/preference.md, records)")
    if not message.trained:
        blame(field, "an answer of weight 0, and nothing else in this record is learnt: leave the record out")
    return message.content


def read_answer(value: Any, field: str) -> str:
    """Text, or a list of exactly one message of the assistant that says no more than its content.

    Raises:
        ValidationError: for anything else.
    """
    return plain_answer(read_spoken(value, field), field)


def read_exchange(value: Any, field: str) -> tuple[list[Message], str]:
    """A whole conversation as its prompt and the content of the assistant's last message, which says no more.

    Raises:
        ValidationError: for anything else.
    """
    prompt, answer = read_conversation(value, field)
    return prompt, plain_answer(answer, field)


def read_conversation(value: Any, field: str) -> tuple[list[Message], Message]:
    """A whole conversation as its prompt and the assistant's last message.

    Raises:
        ValidationError: unless the assistant has the last word.
    """
    messages = read_messages(value, field)
    if messages[-1].role != "assistant":
        blame(field, f"[{len(messages) - 1}].role: the last message is the assistant's, not '{messages[-1].role}'")
    return require_prompt(messages[:-1], field), messages[-1]


def same_words(one: Sequence[Message], other: Sequence[Message]) -> bool:
    """Whether two conversations say the same, whatever else their files tell of them."""
    return [message.said() for message in one] == [message.said() for message in other]


def spoken_before(one: Sequence[Message], other: Sequence[Message]) -> list[Message]:
    """What two conversations have in common from their beginning, up to the last message that can be answered."""
    common: list[Message] = []
    for left, right in zip(one, other, strict=False):
        if not same_words([left], [right]):
            break
        common.append(left)
    while common and common[-1].role not in ("user", "tool"):
        common.pop()
    return common
