"""What a record is that does not fit: the fields it has, whose form that is, and what would read it.

This file knows forms in which collections are spread. It does not know the types that read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHOWN = 12  # names of fields
ALIKE = {  # what we call it -> what others do
    "prompt": ("question", "query", "problem", "input", "text", "inputs"),
    "question": ("prompt", "input", "instruction", "text"),
    "output": ("answer", "solution", "target", "label", "targets", "chosen"),
    "completion": ("answer", "solution", "target", "targets"),
    "chosen": ("preferred", "winner", "accepted", "answer_w"),
    "rejected": ("dispreferred", "loser", "refused", "answer_l"),
    "label": ("desirable", "is_good", "good"),
}


def found_instead(fields: dict[str, Any], lacking: Sequence[str], renames: bool) -> str:
    """What to add to the complaint that fields are missing: those that are there, and what might be meant by them.

    Args:
        fields: of the record.
        lacking: names of the fields that it lacks.
        renames: whether a ``field_map`` can give them other names.
    """
    if not fields:
        return ""
    more = ", ..." if len(fields) > SHOWN else ""
    told = f". Found: {', '.join([*fields][:SHOWN])}{more}"
    sides = [fields.get(side) for side in ("chosen", "rejected")]
    if "prompt" in lacking and all(isinstance(side, str) and side.lstrip().startswith("Human:") for side in sides):
        return f"{told}. These are whole dialogues (hh-rlhf): give data.format: dialogues"
    pairs = {ours: next((name for name in ALIKE.get(ours, ()) if name in fields), None) for ours in lacking}
    known = ", ".join(f"{ours}: {theirs}" for ours, theirs in pairs.items() if theirs is not None)
    if not known or not renames:
        return told
    form = " This looks like GSM8K:" if "####" in str(fields.get("answer")) else ""
    return f"{told}.{form or ' For these'} give data.field_map: {{{known}}}"
