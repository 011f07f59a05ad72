"""Prompts with a place in them at which something is seen.

The place is one id, which a batch replaces by the ids of vectors. What comes before it and behind it is tokenised
apart, so that no token is of both. Knows renderers and ids, no pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from lm.forests.vector_ids import FIRST_VECTOR
from lm.tokens.chat import ChatRenderer, Rendered
from lm.tokens.control_tokens import encode
from text.chat.messages import Message
from text.errors import UserError
from text.video.video_records import with_speech

PLACE = "\ue000"
"""Stands where something is seen; a character that no text has."""


def place_of(clip: int) -> int:
    """The id that stands for a clip."""
    return FIRST_VECTOR + clip


def clip_at(ids: np.ndarray) -> tuple[int, int] | None:
    """Where an id stands for a clip, and for which; None if nothing is seen."""
    found = np.flatnonzero(ids >= FIRST_VECTOR)
    return (int(found[0]), int(ids[found[0]]) - FIRST_VECTOR) if len(found) else None


def prompt_ids(
    renderer: ChatRenderer, prompt: str | Sequence[Message], clip: int | None, system: str | None = None
) -> list[int]:
    """The tokens of a prompt, with the id of a clip at the beginning of what the user says first; None: text alone.

    Raises:
        UserError: if the chat template does not show it.
    """
    if clip is None:
        return renderer.prompt_ids(prompt, system)
    before, found, behind = renderer.prompt_text(_marked(prompt), system).partition(PLACE)
    if not found:
        raise UserError("the chat template does not show the beginning of what the user says, where the video belongs")
    told = encode(renderer.tokenizer, [behind])[0] if behind else []
    return [*renderer.encode_prompts([Rendered(before)])[0], place_of(clip), *told]


def turn_ids(
    renderer: ChatRenderer,
    answers: Sequence[str],
    asked: Sequence[str],
    clip: int | None,
    system: str | None = None,
    speech: str = "",
) -> list[int]:
    """The tokens of a turn's prompt: what was asked before it, with the answers that were given, and its own question.

    Args:
        renderer: of messages.
        answers: to the questions before this one.
        asked: all questions of the conversation, in order.
        clip: that it is about.
        system: see `prompt_ids`.
        speech: see `text.video.video_records.with_speech`.
    """
    said = [Message(role="assistant", content=answer) for answer in answers]
    questions = [Message(role="user", content=question) for question in asked[: len(said) + 1]]
    turns = [turn for pair in zip_longest(questions, said) for turn in pair if turn is not None]
    return prompt_ids(renderer, with_speech(turns, speech), clip, system)


def require_some_speech(most: int | None) -> None:
    """Refuse a number of tokens of which a transcript has none.

    Raises:
        UserError: naming the option.
    """
    if most is not None and most < 1:
        raise UserError(f"data.max_transcript_tokens is {most}; it must be 1 or more, or null: all of a transcript")


def cut_speech(speech: str, most: int | None, words: Callable[[str], list[int]]) -> str:
    """A transcript of at most so many tokens: lines are left out of its middle, and how many stands in their place.

    If that alone is too long, nothing is shown.

    Args:
        speech: line by line.
        most: tokens; None is any number.
        words: makes tokens of a text.
    """
    lines = speech.splitlines(keepends=True)
    if most is None or len(words(speech)) <= most:
        return speech
    sizes, told = [len(words(line)) for line in lines], "[{} lines of speech are left out]\n"
    room, first, behind = most - len(words(told.format(len(lines)))), 0, len(lines)
    if room < 0:
        return ""
    while first < behind:  # by turns from the beginning and from the end
        at = first if first <= len(lines) - behind else behind - 1
        if (room := room - sizes[at]) < 0:
            break
        first, behind = (first + 1, behind) if at == first else (first, behind - 1)
    return "".join([*lines[:first], told.format(behind - first), *lines[behind:]]).rstrip("\n")


def require_room(name: str, tokens: int, context: int | None) -> None:
    """Refuse what the model cannot read to its end: what a clip takes is known when it is seen, and not before.

    Args:
        name: of the record or question.
        tokens: that it takes with its clip.
        context: the most that the model reads; None is any number.

    Raises:
        UserError: naming it and the remedy.
    """
    if context is not None and tokens > context:
        raise UserError(
            f"'{name}': {tokens:,} tokens with those of its clip, and the model reads {context:,} at most: look at "
            "fewer frames (data.sampling), or make fewer vectors of a clip (model.max_tokens)"
        )


def _marked(prompt: str | Sequence[Message]) -> str | list[Message]:
    if isinstance(prompt, str):
        return PLACE + prompt
    first = next(number for number, turn in enumerate(prompt) if turn.role == "user")
    shown = prompt[first].model_copy(update={"content": f"{PLACE}\n{prompt[first].content}"})
    return [*prompt[:first], shown, *prompt[first + 1 :]]
