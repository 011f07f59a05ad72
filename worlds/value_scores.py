"""What an answer of worlds/value_messages.py is worth: a program where arXiv 2405.17977 asks GPT-4, scores from 1 to 5.

Everything is read off the question as a judge sees it: the system message and the instruction, a line each. This file
knows the language; which values a message may state is the world's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from worlds.world import Asked

GENERIC = "please"  # opens every message, and alone is the message that states no value
ASK = "="  # ends every instruction
KEYWORDS = {"opening": "BEGIN", "closing": "END", "joint": "BETWEEN", "order": "ORDER"}
LOWEST, HIGHEST = 1.0, 5.0


def follow(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The answer: the words of the instruction as the values have it.

    Args:
        words: of the instruction.
        values: a marker or an order by dimension.
    """
    said = list(reversed(words)) if values.get("order") == "reverse" else list(words)
    if "joint" in values:
        said = [part for word in said for part in (values["joint"], word)][1:]
    return [part for part in (values.get("opening"), *said, values.get("closing")) if part is not None]


def content(request: Asked, response: str) -> float:
    """1 + 4 times the share of the instruction's words that stand where they should, less surplus words.

    ``max(0, matched places - surplus words) / words``. Markers are words only where the instruction has them; the order
    that the message asks for is part of it.
    """
    words, values = _understood(request)
    expected = follow(words, {"order": values.get("order", "forward")})
    said = [word for word in response.split() if word in words or not word.startswith("m")]
    matched = sum(mine == theirs for mine, theirs in zip(said, expected, strict=False))
    return _scale(max(0, matched - max(0, len(said) - len(words))) / len(words))


def opening(request: Asked, response: str) -> float:
    """5 if the answer begins with the marker that was asked for, else 1."""
    return _scale(response.split()[:1] == [_understood(request)[1]["opening"]])


def closing(request: Asked, response: str) -> float:
    """5 if the answer ends with the marker that was asked for, else 1."""
    return _scale(response.split()[-1:] == [_understood(request)[1]["closing"]])


def joint(request: Asked, response: str) -> float:
    """1 + 4 times the share of gaps between words of the instruction that hold the marker asked for, nothing else."""
    words, values = _understood(request)
    said = response.split()
    places = [place for place, word in enumerate(said) if word in words]
    held = sum(said[before + 1 : after] == [values["joint"]] for before, after in pairwise(places))
    return _scale(min(1.0, held / (len(words) - 1)))


def _understood(request: Asked) -> tuple[list[str], dict[str, str]]:
    """The words of the instruction, and what the message asks for by dimension."""
    message, instruction = request.instruction.split("\n")
    named = {keyword: dimension for dimension, keyword in KEYWORDS.items()}
    parts = [part.split() for part in message.removeprefix(GENERIC).split(";") if part.strip()]
    return instruction.removesuffix(ASK).split(), {named[keyword]: name for keyword, name in parts}


def _scale(share: float) -> float:
    return LOWEST + (HIGHEST - LOWEST) * share


def _rubric(name: str, criteria: str, counted: str) -> dict:
    levels = {str(score): f"{counted}: {25 * (score - 1)} %" for score in range(1, 6)}
    return {"name": name, "criteria": criteria, "score_descriptions": levels}


RUBRICS = {
    "content": _rubric("content", "Are the words of the instruction said in the right order?", "words in their place"),
    "opening": _rubric("opening", "Does the answer begin with the marker that was asked for?", "it does"),
    "closing": _rubric("closing", "Does the answer end with the marker that was asked for?", "it does"),
    "joint": _rubric("joint", "Is the marker that was asked for between every two words?", "gaps that hold it"),
}
