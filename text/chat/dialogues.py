r"""Plain dialogues in which turns open with a blank line and ``Human:`` or ``Assistant:`` (hh-rlhf, arXiv 2204.05862).

Knows turn marks. It does not know what to do with a pair whose dialogues part early, or whose answer is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from text.chat.chat_records import PreferenceRecord
from text.chat.messages import Message, Role, blame, spoken_before

MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


class DialogueRecord(PreferenceRecord):
    """A pair whose two sides are whole dialogues; read into the normal form of a pair.

    The prompt is what the dialogues have in common in whole turns, up to the last turn of the human; an answer is the
    last turn of the assistant. What stands between the two, on either side, makes a ``context_mismatch``.
    """

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        sides = [side for side in ("chosen", "rejected") if side in given]
        dialogues = [read_dialogue(given[side], side) for side in sides]
        given |= {side: dialogue[-1].content for side, dialogue in zip(sides, dialogues, strict=True)}
        if len(dialogues) == 2:
            one, other = (dialogue[:-1] for dialogue in dialogues)
            if not (prompt := spoken_before(one, other)):
                blame("rejected", "shares no turn of the human with 'chosen', so the pair has no prompt")
            given |= {"prompt": _in_turn(prompt), "context_mismatch": one != prompt or other != prompt}
        super()._normal(given)


PAIR_FORMATS: dict[str, type[PreferenceRecord]] = {"pairs": PreferenceRecord, "dialogues": DialogueRecord}


def read_dialogue(text: Any, field: str) -> list[Message]:
    """The turns of a dialogue that the assistant ends, each without the one space that follows its mark.

    Raises:
        ValidationError: for anything else.
    """
    before, *parts = MARK.split(text) if isinstance(text, str) else ["?"]
    if before.strip() or len(parts) < 4 or parts[0] != "Human" or parts[-2] != "Assistant":
        blame(field, "should be a dialogue: turns open with a blank line and 'Human:' (first) or 'Assistant:' (last)")
    marked = zip(parts[::2], parts[1::2], strict=True)
    return [Message(role=SPEAKERS[mark], content=said.removeprefix(" ")) for mark, said in marked]


def _in_turn(turns: Iterable[Message]) -> list[Message]:
    """Turns in which nobody follows himself: whoever speaks again goes on, after a blank line."""
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            turn = Message(role=turn.role, content=f"{joined.pop().content}\n\n{turn.content}")
        joined.append(turn)
    return joined
