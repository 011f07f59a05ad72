"""Jinja chat templates: rendered within limits, and asked how they end a turn and which marks they write.

A template comes with a tokenizer, so it is data of others: transformers renders it in a sandbox, and here in a process
of its own, where it may neither run for ever, nor fill the memory, nor fail without a word. This file knows messages as
a template sees them. It does not know prompts (lm/tokens/chat.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from text.errors import UserError
from text.limited_process import LimitedProcess, LimitReached

SECONDS = 5.0  # of computing; a conversation takes milliseconds
_PROCESS = LimitedProcess(Path(__file__).with_name("template_process.py"))
ASKED, ANSWERED = "Hold fast to this line.", "It is held fast."


class TemplateRefusal(UserError):
    """A chat template that does not take some messages."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, Any] | None = None,
    ask: bool = True,
    origin: str = "",
) -> str:
    """Messages as the tokenizer's template writes them; any thread may ask.

    Args:
        tokenizer: with a chat template.
        messages: of a conversation.
        tools: that the assistant may call, as JSON schemas.
        arguments: more variables of the template (``enable_thinking``).
        ask: open the answer of the assistant at the end.
        origin: where the template is from, for the words of an error; the tokenizer by default.

    Raises:
        TemplateRefusal: if the template fails, takes longer than `SECONDS` or more memory than its process has.
    """
    variables = {**tokenizer.special_tokens_map, **(arguments or {})}
    try:
        asked = {
            "conversations": [[{key: part for key, part in one.items() if part is not None} for one in messages]],
            "tools": list(tools) or None,
            "chat_template": tokenizer.get_chat_template(None, list(tools) or None),
            "add_generation_prompt": ask,
        }
        reply = _PROCESS.ask(variables | asked, SECONDS)
    except (LimitReached, TypeError, ValueError) as error:
        reply = {"error": str(error)}
    if (told := reply.get("error")) is None:
        return reply["text"]
    own = f"the template of '{tokenizer.name_or_path}'" if tokenizer.name_or_path else "the tokenizer's own"
    origin = origin or f"{own}; chat.template takes another"
    raise TemplateRefusal(f"the chat template refuses these messages: {told} [{origin}]")


def check_arguments(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]) -> None:
    """Refuse variables that the template does not know, or that are not the user's to give.

    Raises:
        TemplateRefusal: naming the variable.
    """
    source = template_source(tokenizer)
    taken = {"messages", "conversations", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name in arguments:
        if name in taken or name in tokenizer.special_tokens_map:
            raise TemplateRefusal(f"chat_template_kwargs: '{name}' is not a variable that can be given")
        if name not in source:
            raise TemplateRefusal(f"chat_template_kwargs: the chat template has no variable '{name}'")


def template_source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the template, or of all that a tokenizer has; '' for none."""
    template = tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends what the assistant says: the first one that the template writes after an answer.

    A template that writes no token there, or none at all, leaves it to the end-of-text token; None if there is none.
    """
    if tokenizer.chat_template is None:
        return tokenizer.eos_token_id
    marks = _added(tokenizer)
    for after in (_after_the_last(tokenizer), _between_turns(tokenizer)):
        ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        if (found := next((token for token in ids if token in marks), None)) is not None:
            return found
    return tokenizer.eos_token_id


def turn_marks(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Tokens that set turns apart: those that are special, and added ones that the template writes around turns.

    Marks within an answer (``<think>``) are none unless they are special: models write them themselves.
    """
    marks = set(tokenizer.all_special_tokens)
    marks |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    shown = _shown(tokenizer, "user", "assistant", "user") or _shown(tokenizer, "user")
    return marks | {token for token in _added(tokenizer).values() if token in shown}


def template_marks(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Turn marks, and all other added tokens that the template may write."""
    source = template_source(tokenizer)
    return turn_marks(tokenizer) | {token for token in _added(tokenizer).values() if token in source}


def _added(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Added tokens by id, but for white space, which some vocabularies add as words."""
    added = tokenizer.added_tokens_decoder.items()
    found = {id: token.content for id, token in added if not token.content.isspace()}
    return found | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def _shown(tokenizer: PreTrainedTokenizerBase, *roles: str) -> str:
    """Turns of the probe's words; '' where the template refuses them."""
    if tokenizer.chat_template is None:
        return ""
    messages = [{"role": role, "content": ANSWERED if role == "assistant" else ASKED} for role in roles]
    try:
        return render(tokenizer, messages, ask=False)
    except TemplateRefusal:
        return ""


def _after_the_last(tokenizer: PreTrainedTokenizerBase) -> str:
    """What is written after an answer that nobody answers."""
    return _shown(tokenizer, "user", "assistant").rpartition(ANSWERED)[2]


def _between_turns(tokenizer: PreTrainedTokenizerBase) -> str:
    """What is written after an answer, but for what opens the turn of the user who goes on."""
    shown = _shown(tokenizer, "user", "assistant", "user")
    if shown.count(ASKED) != 2 or ANSWERED not in shown:
        return ""
    opening, between = shown.partition(ASKED)[0], shown.rpartition(ANSWERED)[2].partition(ASKED)[0]
    common = 0
    while common < min(len(opening), len(between)) and opening[-1 - common] == between[-1 - common]:
        common += 1
    return between[: len(between) - common]
