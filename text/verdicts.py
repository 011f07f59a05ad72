"""What a judge's words come to: a score in range or a letter, or nothing and the reason why. Never a guess.

Judges close with ``[RESULT]`` and a verdict (arXiv 2405.01535, appendix); models stray from that in ways that are
listed in the tests. A verdict counts only at the end of the text, so that a number in the reasons is not taken for one.
How far a judge may stray is a ``Reading``: not at all (``strict``), as far as is clear (``lenient``), or exactly as far
as the package of the released weights has it (``official``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Reason = Literal["ok", "empty", "no_marker", "no_value", "out_of_range", "trailing_text"]
Reading = Literal["strict", "lenient", "official"]

SPECIAL = re.compile(r"(?:\s*(?:</?s>|<\|[^|<>]*\|>))+\s*$")  # end tokens that a decoder left in
TAG = r"\[(?:result|score)\]:?"
MARKER = re.compile(rf"(?:{TAG}|\bscore(?:\s+of\b|:)?|\bresult:?)", re.IGNORECASE)
OPEN, CLOSE = r"[\s(\[*]*", r"[\s)\]*]*"
OFFICIAL_LETTER = re.compile(
    r"(?:\[result\](?:\s+response)?|\[result:|\[response\s|(?:^|\n)result:?)\s*([ab])\]?\s*(?:\n|$)", re.IGNORECASE
)
STRICT = re.compile(r"(?s:(.*))\[RESULT\] ?(?:([0-9]+)|([AB]))")


class Parsed(NamedTuple):
    """What was found.

    Args:
        value: the score or the letter; None where there is none.
        feedback: what was said before it.
        reason: why there is none: nothing was said, nothing that announces a verdict, an announcement without a
            verdict right after it at the end, a verdict that further words follow, or a score beyond the scale.
    """

    value: int | str | None
    feedback: str
    reason: Reason


def parse_score(text: str, scale: tuple[int, int] = (1, 5), reading: Reading = "lenient") -> Parsed:
    """The score at the end of what a judge said: the last one announced, even where an earlier one was good.

    Read are ``[RESULT] 4``, ``[RESULT] (4)``, ``[RESULT] 4/5``, ``[RESULT] **4**.``, ``Score: 4``,
    ``score of 4 out of 5`` and, where there is no ``[RESULT]``, a closing ``[4]``; ``strict`` takes the first alone.

    Args:
        text: what the judge wrote, without the prompt.
        scale: lowest and highest score.
        reading: how far the judge may stray.
    """
    text = SPECIAL.sub("", text).strip()
    at_end, closing, official = _patterns(scale[1])
    feedback, rest = _announced(text)
    if reading == "strict":
        found, feedback = _strictly(text, 2)
    elif reading == "official":
        found = official.search(text)
        feedback = text[: found.start()].rstrip() if found else text
    else:
        found = at_end.fullmatch(rest) if rest is not None else None
        if found is None and not re.search(TAG, text, re.IGNORECASE) and (found := closing.search(text)):
            feedback = text[: found.start()].rstrip()
    if found is None:
        return Parsed(None, text, _why(text, rest, rf"{OPEN}[0-9]+"))
    score = int(found[1] if reading != "strict" else found[2])
    if not scale[0] <= score <= scale[1]:
        return Parsed(None, feedback, "out_of_range")
    return Parsed(score, feedback, "ok")


def parse_preference(text: str, reading: Reading = "lenient") -> Parsed:
    """The letter A or B at the end of what a judge said: ``[RESULT] A``, ``[RESULT] Response B``, ``Result: B.``.

    Args:
        text: what the judge wrote, without the prompt.
        reading: see `parse_score`; ``official`` takes the first letter that a line ends with.
    """
    text = SPECIAL.sub("", text).strip()
    feedback, rest = _announced(text)
    if reading == "strict":
        found, feedback = _strictly(text, 3)
        letter = found[3] if found else None
    elif reading == "official":
        found = OFFICIAL_LETTER.search(text)
        letter, feedback = (found[1], text[: found.start()].rstrip()) if found else (None, text)
    else:
        found = re.fullmatch(r"[\s*]*(?:response\s+)?([ab])[\s*]*\.?[\s*]*", rest or "", re.IGNORECASE)
        letter = found[1] if found else None
    if letter is None:
        return Parsed(None, text, _why(text, rest, r"[\s*]*(?:response\s+)?[ab]\b"))
    return Parsed(letter.upper(), feedback, "ok")


def _strictly(text: str, group: int) -> tuple[re.Match[str] | None, str]:
    """The whole text as it was asked for, if its verdict is of this kind, and what stands before the marker."""
    found = STRICT.fullmatch(text)
    return (found, found[1].rstrip()) if found and found[group] else (None, text)


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


def _why(text: str, rest: str | None, verdict: str) -> Reason:
    """Why nothing was read, given what a verdict would begin with."""
    if not text:
        return "empty"
    if rest is None:
        return "no_marker"
    return "trailing_text" if re.match(verdict, rest, re.IGNORECASE) else "no_value"


@lru_cache
def _patterns(highest: int) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """For lenient reading: after an announcement, and a closing number alone; for official reading: at the end."""
    of = rf"(?:/\s*{highest}|\s+out\s+of\s+{highest})?"
    number = r"([0-9]+)"
    announced = r"(?:\[(?:result|score)\]|\[result\]:|(?:score|result):?|score\s+of)"
    return (
        re.compile(rf"{OPEN}{number}{of}{CLOSE}\.?{CLOSE}", re.IGNORECASE),
        re.compile(rf"\[\s*{number}\s*\]\.?$"),
        re.compile(rf"{announced}[\s(\[]*(\d+)(?:[)\]]|/\s*{highest}|\s*out\s*of\s*{highest})?\s*$", re.IGNORECASE),
    )
