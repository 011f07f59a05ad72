r"""Answers as what they are made of: one thing, a list, a set, a tuple or an interval; numerals of other bases.

``1, 2``, ``1 \text{ and } 2``, ``x = 1 or x = 2`` and ``\pm 3`` are lists; ``\{1, 2\}`` is a set, and no tuple
``(1, 2)``. This file splits answers. It does not know when two of their items are the same (text/reasoning/answers.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from text.reasoning.stated_numbers import whole_number

SET, TUPLE, ONE, LIST = "{}", "()", "", ","
UNORDERED = (SET, LIST)

MOST_WRAPS = 6  # pairs of marks around an answer
_WRAPS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"), ("`", "`"), ("*", "*"))
_OUTER = {
    ("\\{", "\\}"): SET,
    ("{", "}"): SET,
    ("(", ")"): TUPLE,
    ("[", "]"): "[]",
    ("(", "]"): "(]",
    ("[", ")"): "[)",
}
_AND = re.compile(
    r"(?:,|;)?\s*(?:\\(?:text|mbox|textrm|mathrm)\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_NAMED = re.compile(r"([A-Za-z]) ?= ?")
_ELEMENT = re.compile(r"[A-Za-z] ?\\in ?(?=[(\[{\\])")
_STRUCTURE = re.compile(r"\\(?:begin|cup|cap|setminus|times)(?![a-z])")
PROSE = re.compile(r"(?:^|\s)[A-Za-z]{2,}(?=[\s.,;:!?]|$)")
_BASED = re.compile(r"(-?)([0-9A-Fa-f]*)(?:\.([0-9A-Fa-f]+))?_(?:\{ ?(?:\\text\{)?([0-9]+|[a-z]+)\}?\}|([0-9]))")
_SUBSCRIPT = re.compile(r"[0-9]\}?_\{? ?(?:\\text\{)?[0-9a-z]")
_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASES = {name: base for base, name in enumerate(_NAMES, 2)}


class Parts(NamedTuple):
    """An answer, split.

    Args:
        kind: ONE for a single thing, LIST, SET, or the two brackets of a tuple or an interval.
        items: as they are written; the answer itself where it is a single thing.
        name: the variable that they are values of, where one is named.
    """

    kind: str
    items: list[str]
    name: str = ""


def undressed(answer: str) -> str:
    """Without white space, the full stop of the sentence, and dollars or Markdown around the whole."""
    for _ in range(MOST_WRAPS):
        answer = re.sub(r"(?<![.\\])[.。]$", "", answer.strip()).strip()
        for begin, end in _WRAPS:
            inner = answer[len(begin) : -len(end)]
            if answer.startswith(begin) and answer.endswith(end) and inner and begin not in inner:
                answer = inner.strip()
        if answer.endswith("**") and answer.count("**") == 1:  # bold since before the answer
            answer = answer.removesuffix("**")
    return answer


def parts_of(answer: str) -> Parts | None:
    """The items of a tidy answer without its dressing; None for what has more structure than this file knows."""
    if _STRUCTURE.search(answer):
        return None
    if element := _ELEMENT.match(answer):
        answer = answer[element.end() :]
    if (kind := _brackets(answer)) is not None:
        items = list(_split(answer[2:-2] if answer.startswith("\\") else answer[1:-1], bare=True))
        if not all(items) or (kind == SET and re.search(r"[:|]|\\mid|\\in(?![a-z])", answer)):
            return None
        return Parts(ONE if kind != SET and len(items) == 1 else kind, items)
    found = [answer] if whole_number(answer) is not None else [*_split(answer, bare=False)]
    if not all(found) or (len(found) > 1 and any(re.search("[0-9]", item) and PROSE.search(item) for item in found)):
        return None
    found = found if len(found) > 1 else [answer]  # the words between separators as they were
    names = [_NAMED.match(item) for item in found]
    letters = {name[1] for name in names if name}
    if len(letters) > 1 or (letters and not names[0]):
        return None
    found = [item[name.end() :] if name else item for item, name in zip(found, names, strict=True)]
    items = [both for item in found for both in _plus_minus(item)]
    return Parts(LIST if len(items) > 1 else ONE, items, "".join(letters))


def based_value(answer: str) -> Fraction | None:
    """The value of ``1011_2`` or ``1F_{16}``; None if it is no numeral of a base, or none of its digits are."""
    if (found := _BASED.fullmatch(answer.replace(" ", ""))) is None:
        return None
    sign, whole, below, named, digit = found.groups()
    if not re.search("[0-9]", whole + (below or "")):
        return None  # a variable
    base = _BASES.get(named or "") or int(digit or (named if named.isdigit() else 0))
    try:
        value = Fraction(int(whole + (below or ""), base), base ** len(below or ""))
    except (ValueError, ZeroDivisionError):
        return None
    return -value if sign else value


def has_base(answer: str) -> bool:
    """Whether a number in it has an index, which libraries read over."""
    return bool(_SUBSCRIPT.search(answer))


def _brackets(answer: str) -> str | None:
    """What kind of brackets are around the whole, if they belong together."""
    for (opens, closes), kind in _OUTER.items():
        if answer.startswith(opens) and answer.endswith(closes) and len(answer) >= len(opens) + len(closes):
            depth = 0
            for place, sign in enumerate(answer):
                depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
                if not depth and sign in ")]}":
                    return kind if place == len(answer) - 1 else None
    return None


def _split(text: str, bare: bool) -> Iterator[str]:
    """The parts between commas, semicolons and "and" or "or" that stand in no brackets.

    Commas between digits may be of thousands: always outside of brackets, inside (``bare``) beside other separators.
    """
    text = _AND.sub("; ", text)
    kept = set()
    if not bare or re.search(r"[,;]\s|;", text):
        chains = ((found.start(), found[0]) for found in THOUSANDS.finditer(text))
        kept = {start + place for start, chain in chains for place, sign in enumerate(chain) if sign == ","}
    depth, start = 0, 0
    for place, sign in enumerate(text):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
        if depth == 0 and sign in ",;" and place not in kept:
            yield undressed(text[start:place])
            start = place + 1
    yield undressed(text[start:])


def _plus_minus(item: str) -> list[str]:
    if item.count("\\pm") != 1 or "\\mp" in item or "_" in item:
        return [item]
    return [re.sub(r" *\\pm *", sign, item).strip().removeprefix("+") for sign in ("+", "-")]
