"""What a judge's words come to: a score in range or a letter, or nothing and the reason why. Never a guess.

Judges close with ``[RESULT]`` and a verdict (arXiv 2405.01535, appendix); models stray from that in ways that are
listed in the tests. A verdict counts only at the end of the text, so that a number in the reasons is not taken for one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Reason = Literal["ok", "empty", "no_marker", "no_value", "out_of_range"]

SPECIAL = re.compile(r"(?:\s*(?:</?s>|<\|[^|<>]*\|>))+\s*$")  # end tokens that a decoder left in
TAG = r"\[(?:result|score)\]:?"
MARKER = re.compile(rf"(?:{TAG}|\bscore(?:\s+of\b|:)?|\bresult:?)", re.IGNORECASE)
OPEN, CLOSE = r"[\s(\[*]*", r"[\s)\]*]*"


class Parsed(NamedTuple):
    """What was found.

    Args:
        value: the score or the letter; None where there is none.
        feedback: what was said before it.
        reason: why there is none: nothing was said, nothing that announces a verdict, an announcement without a
            verdict right after it at the end, or a score beyond the scale.
    """

    value: int | str | None
    feedback: str
    reason: Reason


def parse_score(text: str, scale: tuple[int, int] = (1, 5)) -> Parsed:
    """The score at the end of what a judge said: the last one announced, even where an earlier one was good.

    Read are ``[RESULT] 4``, ``[RESULT] (4)``, ``[RESULT] 4/5``, ``[RESULT] **4**.``, ``Score: 4``,
    ``score of 4 out of 5`` and, where there is no ``[RESULT]``, a closing ``[4]``.

    Args:
        text: what the judge wrote, without the prompt.
        scale: lowest and highest score.
    """
    text = SPECIAL.sub("", text).strip()
    at_end, closing = _patterns(scale[1])
    feedback, rest = _announced(text)
    found = at_end.fullmatch(rest) if rest is not None else None
    if found is None and not re.search(TAG, text, re.IGNORECASE) and (found := closing.search(text)):
        feedback = text[: found.start()].rstrip()
    if found is None:
        return Parsed(None, text, _why(text, rest))
    score = int(found[1])
    if not scale[0] <= score <= scale[1]:
        return Parsed(None, feedback, "out_of_range")
    return Parsed(score, feedback, "ok")


def parse_preference(text: str) -> Parsed:
    """The letter A or B at the end of what a judge said: ``[RESULT] A``, ``[RESULT] Response B``, ``Result: B.``."""
    text = SPECIAL.sub("", text).strip()
    feedback, rest = _announced(text)
    found = re.fullmatch(r"[\s*]*(?:response\s+)?([ab])[\s*]*\.?[\s*]*", rest or "", re.IGNORECASE)
    if found is None:
        return Parsed(None, text, _why(text, rest))
    return Parsed(found[1].upper(), feedback, "ok")


def _announced(text: str) -> tuple[str, str | None]:
    """What stands before the last announcement, and what after it (None without one)."""
    if not (markers := list(MARKER.finditer(text))):
        return text, None
    start = markers[-1].start()
    for earlier, later in zip(markers[-2::-1], markers[:0:-1], strict=True):  # "[RESULT] Score: 2" is one
        if text[earlier.end() : later.start()].strip("* "):
            break
        start = earlier.start()
    return text[:start].rstrip(" \n*"), text[markers[-1].end() :]


def _why(text: str, rest: str | None) -> Reason:
    if not text:
        return "empty"
    return "no_marker" if rest is None else "no_value"


@lru_cache
def _patterns(highest: int) -> tuple[re.Pattern[str], re.Pattern[str]]:
    of = rf"(?:/\s*{highest}|\s+out\s+of\s+{highest})?"
    number = r"([0-9]+)"
    return (
        re.compile(rf"{OPEN}{number}{of}{CLOSE}\.?{CLOSE}", re.IGNORECASE),
        re.compile(rf"\[\s*{number}\s*\]\.?$"),
    )
