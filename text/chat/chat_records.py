"""Records of conversations: instructions with answers, preference pairs, labelled answers, prompts alone.

Each type has one normal form, and reads the forms that others have spread as they are: TRL's columns, Alpaca's, those
of the Multifaceted Collection (docs/preference.md, records). What is no field of a type is read over, and kept in
``model_extra``. This file does not know where a record came from, nor what is left out of a data set.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationInfo, create_model, model_validator

from text.chat.messages import (
    Message,
    Prompt,
    Role,
    TemplateInputs,
    blame,
    read_answer,
    read_conversation,
    read_exchange,
    read_prompt,
    read_spoken,
    read_tools,
    same_words,
    spoken_before,
)
from text.records import Id, Record, Text

__all__ = [
    "AnyRecord",
    "ChatRecord",
    "InstructionRecord",
    "LabelledRecord",
    "Message",
    "PreferenceRecord",
    "PromptRecord",
    "Role",
    "Tokens",
]

CONVERSATIONS = ("messages", "conversations")
PROMPTS = ("prompt", "instruction", "user_prompt")
ANSWERS = ("output", "response", "completion")
Tokens = list[Annotated[int, Field(ge=0)]]


class Preference(Record):
    """What a user values in an answer (arXiv 2405.17977, section 3).

    Args:
        dimension: style, background knowledge, informativeness, harmlessness.
        subdimension: a branch of it.
        preference: short name.
        description: a sentence or two.
    """

    model_config = ConfigDict(extra="ignore")

    dimension: Text
    subdimension: Text
    preference: Text
    description: str = ""


class AnyRecord(Record):
    """A record whose form is yet to be seen: any object, all of it in ``model_extra``."""

    model_config = ConfigDict(extra="allow")


class ChatRecord(Record):
    """What all records of conversations have.

    Args:
        id: unique in its source; the place where it stands when missing.
        group_id: records of one group are variants of one instruction, and stay together; ``instruction_id`` is the
            same. Records without one belong together if their prompts are the same.
        prompt: what is answered: text, or messages that end with a user's.
        system: the system message of a prompt that has none among its messages; ``system_prompt`` is the same.
        source: where a collection has it from.
        preference_set: what the system message asks for.
        tools: that the assistant may call, as JSON schemas, for the chat template; a list, or JSON.
        chat_template_kwargs: variables of the chat template, such as ``enable_thinking``.
    """

    model_config = ConfigDict(extra="allow")

    renamed: ClassVar[dict[str, str]] = {}  # their name -> ours

    id: Id | None = None
    group_id: Id | None = None
    prompt: Prompt
    system: str | None = None
    source: str | None = None
    preference_set: list[Preference] = Field(default_factory=list)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def with_names(cls, field_map: dict[str, str] | None) -> type[Self]:
        """The same type for a source with other names.

        Args:
            field_map: our name -> the name in the source. A file that has none of these names is read by its own
                (``renames`` of the validation's context).
        """
        if not field_map:
            return cls
        made = create_model(cls.__name__, __base__=cls)
        made.renamed = {theirs: ours for ours, theirs in field_map.items()}
        return made

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None}
        renamed = cls.renamed if (info.context or {}).get("renames", True) else {}
        taken = {ours: given.pop(theirs) for theirs, ours in renamed.items() if theirs in given}
        for ours in renamed.values():  # whatever else goes by our name was not asked for
            given.pop(ours, None)
        given |= taken
        if renamed.get("instruction") == "prompt" and {"prompt", "input"} <= given.keys():
            given["instruction"] = given.pop("prompt")  # Alpaca's, which goes with its input
        _one_name(given, "group_id", ("group_id", "instruction_id"))
        _one_name(given, "system", ("system", "system_prompt"))
        if "tools" in given:
            given["tools"] = read_tools(given["tools"], "tools")
        cls._normal(given)
        prompt = given.get("prompt")
        if isinstance(prompt, list) and "system" in given and prompt[0].role == "system":
            blame("system", "the messages have a system message already: give it in one place")
        return given

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        """Bring the fields of one kind of record into their normal form, in place."""
        _read_prompt_of(given)

    @property
    def inputs(self) -> TemplateInputs:
        """What the chat template is given beside the messages."""
        return TemplateInputs(self.tools, self.chat_template_kwargs)

    def messages(self) -> list[Message]:
        """The prompt as messages, the system message first; an empty one adds nothing."""
        turns = [Message(role="user", content=self.prompt)] if isinstance(self.prompt, str) else list(self.prompt)
        return [Message(role="system", content=self.system), *turns] if self.system else turns


class InstructionRecord(ChatRecord):
    """An instruction and its answer.

    Read as they are: ``messages`` that end with the assistant's (earlier answers stay in the prompt); prompt and
    ``completion``, each as text or as messages; Alpaca's ``instruction``, ``input`` and ``output``; ``system_prompt``,
    ``user_prompt`` and ``response``.

    Args:
        output: the answer; its content, if it also calls tools.
        spoken: the answer as a message.
    """

    output: str
    spoken: Message = Field(Message(role="assistant", content=""), exclude=True)

    @property
    def answer(self) -> str | Message:
        """What is learnt: the text, or the message if it says more than its content."""
        return self.spoken.answer

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.output.strip() and not self.spoken.tool_calls:
            blame("output", "must not be empty")
        return self

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        if (field := _one_name(given, "messages", CONVERSATIONS)) is not None:
            prompt, spoken = read_conversation(given.pop("messages"), field)
            if (name := _first_of(given, ANSWERS)) is not None:
                blame(field, f"given, and '{name}' too: one thing, one name")
            _repeats_first(given, prompt, field)
            given["prompt"] = prompt
        else:
            _read_prompt_of(given)
            if (name := _one_name(given, "output", ANSWERS)) is None:
                return  # told as missing
            spoken = read_spoken(given["output"], name)
        given |= {"output": spoken.content, "spoken": spoken}


class PreferenceRecord(ChatRecord):
    """A prompt with two answers, of which one is preferred.

    Read as they are: answers as text or as a list of one message of the assistant; and answers that are whole
    conversations, whose prompt is what they have in common before the last message.

    Args:
        chosen: the preferred answer.
        rejected: the other one.
        margin: by which the chosen answer should win.
        weight: of the pair's loss.
        ref_chosen_logp: sum of a reference's log-probs of the chosen answer, nats; both or none.
        ref_rejected_logp: of the rejected answer.
        context_mismatch: the two answers were given to conversations that part before the last message; the prompt is
            what they have in common.
        prompt_tokens: what a model was asked, token for token; where there are any, they count, and not the text. So
            with the next two.
        chosen_tokens: without the end token.
        rejected_tokens: without the end token.
    """

    chosen: str
    rejected: str
    margin: FiniteFloat | None = None
    weight: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    ref_chosen_logp: FiniteFloat | None = None
    ref_rejected_logp: FiniteFloat | None = None
    context_mismatch: bool = False
    prompt_tokens: Tokens = Field(default_factory=list)
    chosen_tokens: Tokens = Field(default_factory=list)
    rejected_tokens: Tokens = Field(default_factory=list)

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        sides = [given.get("chosen"), given.get("rejected")]
        if any(isinstance(side, list) and len(side) > 1 for side in sides) and None not in sides:
            _read_conversations(given)
        else:
            _read_prompt_of(given, (*PROMPTS, "input"))
            for side in ("chosen", "rejected"):
                _read_answer_of(given, side, (side,))
        lacking = [name for name in ("ref_chosen_logp", "ref_rejected_logp") if name not in given]
        if len(lacking) == 1:
            blame(lacking[0], "missing, and the reference log-prob of the other answer is given: give both or none")


class LabelledRecord(ChatRecord):
    """A prompt with one answer that is good or bad by itself.

    Args:
        completion: the answer; ``output`` and ``response`` are the same.
        label: whether it is desirable; 0 and 1 are read as such.
        weight: of the answer's loss.
    """

    completion: str
    label: Annotated[
        bool, BeforeValidator(lambda value: bool(value) if type(value) is int and value in (0, 1) else value)
    ]
    weight: Annotated[FiniteFloat, Field(ge=0)] = 1.0

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        _read_prompt_of(given)
        _read_answer_of(given, "completion", ANSWERS)


class PromptRecord(ChatRecord):
    """A prompt to answer; also as ``messages`` that a user ends. Whatever else it holds goes along to the answers."""

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        if (field := _one_name(given, "messages", CONVERSATIONS)) is not None:
            prompt = read_prompt(given.pop("messages"), field)
            _repeats_first(given, prompt, field)
            given["prompt"] = prompt
        else:
            _read_prompt_of(given, (*PROMPTS, "input"))

    def kept(self) -> dict[str, Any]:
        """What goes along: every field that was given, but for the prompt and its system message."""
        return self.model_dump(exclude={"id", "prompt", "system"}, exclude_unset=True)


def read_over(record: Any) -> set[str]:
    """Names of what a record holds and nobody reads: fields, and keys of its messages as ``messages[].<key>``."""
    values = [getattr(record, name, None) for name in ("prompt", "spoken")]
    turns = [turn for value in values for turn in (value if isinstance(value, list) else [value])]
    keys = {f"messages[].{key}" for turn in turns if isinstance(turn, Message) for key in turn.read_over}
    return keys | set(record.model_extra or ())


def _read_conversations(given: dict[str, Any]) -> None:
    """Make a prompt and two answers of ``chosen`` and ``rejected`` that are whole conversations, in place.

    Raises:
        ValidationError: if they are none, or have no message of a user in common.
    """
    (one, chosen), (other, rejected) = (read_exchange(given[side], side) for side in ("chosen", "rejected"))
    prompt = spoken_before(one, other)
    if not prompt:
        blame("rejected", "shares no message of the user with 'chosen', so the pair has no prompt")
    _repeats_first(given, prompt, "chosen")
    given |= {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
    }
    if not same_words(one, other):
        given["context_mismatch"] = True


def _first_of(given: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in given), None)


def _one_name(given: dict[str, Any], ours: str, names: tuple[str, ...]) -> str | None:
    """Put what goes by one of the names under ours, and tell by which; two of them are one too many."""
    found = [name for name in names if name in given]
    if len(found) > 1:
        blame(found[1], f"given, and '{found[0]}' too: one thing, one name")
    if found:
        given[ours] = given.pop(found[0])
    return found[0] if found else None


def _read_prompt_of(given: dict[str, Any], names: tuple[str, ...] = PROMPTS) -> None:
    further = given.pop("input", None) if "instruction" in given else None  # Alpaca's: what the instruction is about
    name = _one_name(given, "prompt", names)
    if name is not None:
        given["prompt"] = read_prompt(given["prompt"], name)
    if further:
        if not isinstance(further, str) or not isinstance(given["prompt"], str):
            blame("input", "should be text that goes on a text 'instruction'")
        given["prompt"] += f"\n{further}"


def _read_answer_of(given: dict[str, Any], ours: str, names: tuple[str, ...]) -> None:
    name = _one_name(given, ours, names)
    if name is not None:
        given[ours] = read_answer(given[ours], name)


def _repeats_first(given: dict[str, Any], conversation: Prompt, field: str) -> None:
    """Drop a prompt that the conversation holds: collections tell the first message of the user again beside it."""
    said = given.pop("prompt", None)
    turns = [] if isinstance(conversation, str) else conversation
    first = [message.content for message in turns if message.role == "user"][:1]
    told = _same(said)
    repeated = same_words(told, turns) if isinstance(told, list) else told == turns
    if said is not None and [said] != first and not repeated:
        blame("prompt", f"is neither what the user says first in '{field}' nor all that comes before the answer")


def _same(value: Any) -> Any:
    return read_prompt(value, "prompt") if isinstance(value, list) else value
