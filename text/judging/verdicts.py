"""What a judge's words come to: a score in range, a letter or a tie, or nothing and the reason why. Never a guess.

Judges close with ``[RESULT]`` and a verdict (arXiv 2405.01535, appendix); models stray from that in ways that are
listed in the tests. A verdict counts only at the end of the text, so that a number in the reasons is not taken for one.
How far a judge may stray is a ``Reading``: not at all (``strict``), as far as is clear (``lenient``), or exactly as far
as the package of the released weights has it (``official``). Every pattern is linear in the text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Reason = Literal["ok", "empty", "no_marker", "no_value", "out_of_range", "trailing_text", "truncated"]
Reading = Literal["strict", "lenient", "official"]

RULES = 3  # raised whenever the same words may come to another verdict: kept verdicts depend on it
SPECIAL = re.compile(r"</?s>|<\|[^|<>]*\|>")  # end tokens that a decoder left in
LONGEST_SPECIAL = 80
SENTENCE_LENGTH = 400  # characters of a sentence that is asked what it means
TAG = r"\[(?:result|score)\]"
OPEN, CLOSE = r"[\s\"'`*_(\[{]*", r"[\s\"'`*_)\]}]*"
LABELS = r"(?:score|rating|grade|result|verdict|winner|preference|better|preferred)(?:\s(?:response|answer))?"
MARKER = re.compile(
    rf"""
      {TAG}[*_]*:?                                                # [RESULT], **[Score]**:
    | (?<!\w)(?<!as\ a\ ){LABELS}[*_"'`]*\s?:                     # **Score**: , "rating":
    | ^[*_\#>\ -]{{0,4}}(?:(?:final|overall)\s)?(?:score|rating|result)(?!\w)[*_]*\s?:?  # a line's begin
    | (?<!\w)(?:score|rating)\sof(?!\w)
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# A clause that denies its verdict, and a sentence that speaks of another case.
DENIES = re.compile(
    r"\b(?:not|never|no|nor|cannot|hardly|(?:less|more|rather|lower|higher)\s+than|at\s+(?:least|most)|instead\s+of|below"
    r"|above|short\s+of|between)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
OTHERWISE = re.compile(
    r"\b(?:if|unless|normally|usually|typically|otherwise|generally|could|might|may"
    r"|would\s+(?:have|deserve|get|receive|earn|merit|warrant))\b",
    re.IGNORECASE,
)
WHOSE = rf"(?:(?:the\s)?(?:response|answer|assistant|option)\s{OPEN})?"
LETTER = re.compile(rf"{OPEN}{WHOSE}([ab]){CLOSE}(?:\.{CLOSE})?", re.IGNORECASE)
TIE = re.compile(
    rf"{OPEN}(?:(?:it\sis\s|it's\s)?(?:an?\s)?(?:tie|draw)|equal(?:ly\sgood)?|both(?:\sare\sequal(?:ly\sgood)?)?)"
    rf"{CLOSE}(?:\.{CLOSE})?",
    re.IGNORECASE,
)
THEREFORE = r"(?:(?:therefore|thus|so|hence|overall|in\sconclusion|in\ssummary|finally),?\s)?"
SENTENCE = re.compile(
    rf"{THEREFORE}(?:i\s(?:think|believe)\s(?:that\s)?)?[*_]*(?:response|answer|option)\s[*_]*(?P<better>[ab])[*_]*"
    r"\sis\s(?:the\s)?(?:(?:clearly|slightly|much|overall|significantly)\s)?(?:better|best|superior|preferable|winner)"
    r"(?:\s(?:response|answer|one|option))?(?:\sthan\s(?:(?:response|answer|assistant|option)\s)?(?P<worse>[ab]))?[*_.]*",
    re.IGNORECASE,
)
TIE_SENTENCE = re.compile(
    rf"{THEREFORE}(?:(?:it\sis|it's|this\sis)\sa\s(?:tie|draw)"
    r"|(?:both|(?:both|the|the\stwo)\s(?:responses|answers))\sare\s(?:equally\s\w+|equal|tied))[*_.]*",
    re.IGNORECASE,
)
QUOTED = re.compile(r"[\"'\u201c]([0-9]+)[\"'\u201d]")
OFFICIAL_LETTER = re.compile(
    r"(?:\[result\](?:\s+response)?|\[result:|\[response\s|(?:^|\n)result:?)\s*([ab])\]?\s*(?:\n|$)", re.IGNORECASE
)
STRICT = re.compile(r"(?s:(.*))\[RESULT\] ?(?:([0-9]+)|([AB]))")


class Parsed(NamedTuple):
    """What was found.

    Args:
        value: the score, the letter or "tie"; None where there is none.
        feedback: what was said before it.
        reason: why there is none: nothing was said, nothing that announces a verdict, an announcement without a
            verdict right after it at the end, a verdict that further words follow, a score beyond the scale, or a text
            that was cut off.
    """

    value: int | str | None
    feedback: str
    reason: Reason


def parse_score(
    text: str, scale: tuple[int, int] = (1, 5), reading: Reading = "lenient", finished: bool = True
) -> Parsed:
    """The score at the end of what a judge said: the last one announced, even where an earlier one was good.

    Read are ``[RESULT] 4``, ``[RESULT] (4)``, ``[RESULT] 4 / 5``, ``[RESULT] **4**.``, ``**Score**: 4``, ``Rating: 4``,
    ``score of 4 out of 5`` in a sentence that neither denies it nor speaks of another case and, where there is no
    ``[RESULT]``, a closing ``[4]`` or ``[[4]]``, or a quoted ``"4"`` alone; ``strict`` takes the first alone.

    Args:
        text: what the judge wrote, without the prompt.
        scale: lowest and highest score.
        reading: how far the judge may stray.
        finished: whether the judge came to an end; what was cut off is no verdict, whatever it ends with.
    """
    text = _without_ends(text)
    if not finished:
        return Parsed(None, text, "truncated")
    at_end, closing, official = _patterns(scale[1])
    feedback, rest = _announced(text) if reading == "lenient" else (text, None)
    if reading == "strict":
        found, feedback = _strictly(text, 2)
    elif reading == "official":
        found = official.search(text)
        feedback = text[: found.start()].rstrip() if found else text
    else:
        found = at_end.fullmatch(rest) if rest is not None else None
        if found is None and not re.search(TAG, text, re.IGNORECASE):
            found = QUOTED.fullmatch(text) or closing.search(text)
            feedback = text[: found.start()].rstrip() if found else text
    if found is None:
        return Parsed(None, text, _why(text, rest if reading == "lenient" else _announced(text)[1], rf"{OPEN}[0-9]+"))
    digits = (found[2] if reading == "strict" else found[1]).lstrip("0")
    if len(digits) > len(str(scale[1])) or not scale[0] <= int(digits or 0) <= scale[1]:
        return Parsed(None, feedback, "out_of_range")
    return Parsed(int(digits or 0), feedback, "ok")


def parse_preference(text: str, reading: Reading = "lenient", ties: bool = False, finished: bool = True) -> Parsed:
    """The letter A or B at the end of what a judge said, or ``tie``.

    Read are ``[RESULT] A``, ``[RESULT] Response B``, ``[RESULT] (A)``, ``[RESULT] [[A]]``, ``Result: B.``,
    ``Winner: A``, a closing ``[[A]]`` and a closing sentence such as ``Response A is better.``

    Args:
        text: what the judge wrote, without the prompt.
        reading: see `parse_score`; ``official`` takes the first letter that a line ends with.
        ties: also read the words for a tie, leniently.
        finished: see `parse_score`.
    """
    text = _without_ends(text)
    if not finished:
        return Parsed(None, text, "truncated")
    feedback, rest = _announced(text) if reading == "lenient" else (text, None)
    if reading == "strict":
        found, feedback = _strictly(text, 3)
        letter = found[3] if found else None
    elif reading == "official":
        found = OFFICIAL_LETTER.search(text)
        letter, feedback = (found[1], text[: found.start()].rstrip()) if found else (None, text)
    else:
        letter = _letter(rest, ties) if rest is not None else None
        if letter is None and not re.search(TAG, text, re.IGNORECASE):
            feedback, letter = _concluded(text, ties)
    if letter is None:
        rest = rest if reading == "lenient" else _announced(text)[1]
        return Parsed(None, text, _why(text, rest, rf"{OPEN}{WHOSE}[ab]\b"))
    return Parsed("tie" if letter == "tie" else letter.upper(), feedback, "ok")


def _letter(rest: str, ties: bool) -> str | None:
    """The letter or tie that all of an announcement's rest is."""
    if (found := LETTER.fullmatch(rest)) is not None:
        return found[1]
    return "tie" if ties and TIE.fullmatch(rest) else None


def _concluded(text: str, ties: bool) -> tuple[str, str | None]:
    """What stands before a verdict that nothing announces, and the verdict: ``[[A]]``, or the last sentence."""
    if (found := re.search(r"\[\[([ABab])\]\]\.?$", text)) is not None:
        return text[: found.start()].rstrip(), found[1]
    start = max(text.rfind(sign, 0, len(text) - 2) for sign in (". ", "! ", "? ", ".\n", "!\n", "?\n", ":\n", "\n")) + 1
    if len(text) - start > SENTENCE_LENGTH:
        return text, None
    sentence = " ".join(text[start:].split()).lstrip("*_")
    found = SENTENCE.fullmatch(sentence)
    if found and (found["worse"] is None or found["worse"].lower() != found["better"].lower()):
        return text[:start].rstrip(), found["better"]
    return (text[:start].rstrip(), "tie") if ties and TIE_SENTENCE.fullmatch(sentence) else (text, None)


def _without_ends(text: str) -> str:
    """Without white space around it and end tokens behind it."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        start = text.rfind("<", max(0, end - LONGEST_SPECIAL), end)
        if start < 0 or not SPECIAL.fullmatch(text, start, end):
            return text[:end].strip()
        end = start


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
        if text[earlier.end() : later.start()].strip("* \n"):
            break
        start = earlier.start()
    if not re.match(TAG, text[start : start + LONGEST_SPECIAL], re.IGNORECASE):
        sentence = re.split(r"[.!?]\s|\n", text[max(0, start - SENTENCE_LENGTH) : start])[-1]
        if DENIES.search(re.split("[,;:]", sentence)[-1]) or OTHERWISE.search(sentence):
            return text, None
    return text[:start].rstrip(" \n*_\"'`{#"), text[markers[-1].end() :]


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
    of = rf"(?:(?:/|out\s+of)\s*{highest}{CLOSE})?"
    number = r"([0-9]+)"
    official_of = rf"(?:[)\]]|/\s*{highest}|\s*out\s*of\s*{highest})?"
    announced = r"(?:\[(?:result|score)\]|\[result\]:|(?:score|result):?|score\s+of)"
    return (
        re.compile(rf"{OPEN}(?:score\s{OPEN})?{number}{CLOSE}{of}(?:\.{CLOSE})?", re.IGNORECASE),
        re.compile(rf"\[\s?(?:\[\s?)?{number}\s?\](?:\s?\])?\.?$"),
        re.compile(rf"{announced}[\s(\[]*(\d+){official_of}\s*$", re.IGNORECASE),
    )
