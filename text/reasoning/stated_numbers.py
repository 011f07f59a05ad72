r"""Which number a text states: one that stands by itself, whatever it is dressed in, and is no part of something else.

``**$42**``, ``$\boxed{42}$``, ``(5)``, ``US$500``, ``18 apples`` and ``2 + 3 = 5`` state a number. ``3,4``, ``5 or 6``,
``2x``, ``12:30`` and ``2 hours and 30 minutes`` state none that can be told. The table is in
docs/self_explore.md. Texts are tidy ones (text/reasoning/numbers.py), and every pattern is linear in them.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from typing import NamedTuple

from text.reasoning.numbers import NUMBER, Read, number_at

CURRENCY = "$€£¥₹₩₽₺₫₴₪฿₦₱₿¢"
FAR = 200  # characters around a number that tell whether it stands alone

_MONEY = rf"(?:(?:US|[A-Z]{{1,2}})?\\?[{CURRENCY}]|(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CAD|AUD|CHF|Rs\.?)(?![A-Za-z]))"
_LATEX = r"\\(?:boxed|fbox|text|textbf|textrm|mathbf|mathrm|displaystyle)(?![a-z])"
_QUOTES = "\"'\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u300c\u300d\u300e\u300f"
_OPEN = re.compile(rf"(?:[\s:*_`(\[{{{_QUOTES}]|\\[(\[{{]|{_MONEY}|{_LATEX})*(?:[A-Za-z] ?= ?)?")
_SIGNED = re.compile(rf"(?P<sign>[+-]?)(?:{_MONEY} ?|{{)*(?P<minus>[+-]?)(?=\.?[0-9]|\\[dtc]?frac)")
_BEFORE = re.compile(rf"(?s:.*?)(?P<sign>[+-]?)(?:{_MONEY} ?|\\boxed|\\[(\[]|[*_`(\[{{{_QUOTES}])*(?P<minus>[+-]?)")
_CLOSE = re.compile(
    rf"(?:[*_`)\]}}{_QUOTES}]| ?(?:\$|\\[)\]])|\\?%|\\}}|\\?[{CURRENCY}]"
    r"|\^ ?(?:\\circ|{ ?\\circ ?})(?: ?[CF](?![A-Za-z]))?)*"
)
_CANDIDATE = re.compile(NUMBER)
_MARK = re.compile(r"[.)] +\S")  # a number and this begin a line of a list, or a heading
_BUT_FOR_A_UNIT = re.compile(r"[\s.!]*|[ -]?(?:[^\W\d_]+|\\(?:text|mathrm)\{[^{}]*\})(?:/[a-z]+)?[\s.!*$)]*")
_ARITHMETIC = re.compile(r"(?:[0-9.,+\-*/^(){}$%= ]|\\(?:times|cdot|div|frac|\$)|[A-Za-z](?= ?=))*")

_SHORT_UNITS = (
    "mm cm m km in ft yd mi mg g kg t lb lbs oz ml mL l L gal s sec ms min h hr hrs am pm AM PM mph kph st nd rd th a I"
)
_WORD = rf"(?:(?:{'|'.join(_SHORT_UNITS.split())})(?![^\W_])|[A-Za-z]{{3,}}|[A-Za-z]{{2}}(?![^\W_])|[^\Wa-zA-Z0-9_])"
_PARTS = (  # several of these units make one quantity
    "hours? hrs? h minutes? mins? min seconds? secs? s feet foot ft inch(?:es)? in yards? miles? pounds? lbs? ounces? "
    "oz dollars? euros? cents? pence years? months? weeks? days? met(?:er|re)s? m centimet(?:er|re)s? cm km kilograms? "
    "kg kilomet(?:er|re)s? grams? g degrees? lit(?:er|re)s?"
)
MAGNITUDES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MAGNITUDE = re.compile(rf"[ -]?({'|'.join(MAGNITUDES)})(?![A-Za-z])", re.IGNORECASE)
_FRACTIONS = "half halves thirds? quarters? fourths? fifths? sixths? sevenths? eighths? ninths? tenths? hundredths?"
_OPERATOR = r"(?:[+*/^=]|\\times|\\cdot|\\div)"
_GOES_ON = re.compile(  # what makes a number a part of something else when it follows
    rf"""
      [.'_]\{{?[0-9] | \ ?[,:;]\ *[($\\*+-]*\.?[0-9] | \.\.  # 1.2.3  5'6  x_2  3,4  12:30  0.333...
    | \ *[+^=<>&] | \ */(?!\ ?[A-Za-z]{{3}}) | \ *\*+\ ?[\w($\\] | ~ | \ *\|\ ?[0-9]
    | -(?=[\w(\\$.]) | \ +-+\ ?[0-9($\\]                  # 5-10, 5 - 3, 5-fold
    | \ *\\(?!\\|[)\]}}$%]|(?:text|textrm|mathrm|quad|qquad)(?![a-z]))  # 5 \times, 5\sqrt
    | \ *\\(?:text|textrm|mathrm)\{{\s*(?:and|or|to)(?![A-Za-z])
    | \ *[0-9] | [(\[{{]                                  # 5 6, 5(6)
    | \ +(?:x|by|and|to|of|in|through|over|per|vs\.?|versus|times|out\ of|mod(?:ulo)?)\ +[*$(\\`_]{{0,3}}-?\.?[0-9]
    | \ +(?:or|plus|minus|squared|cubed|factorial|divided\ by|multiplied\ by|to\ the\ power)(?![A-Za-z])
    | \ +and\ +(?:a\ |an\ |one\ |two\ |three\ )?(?:{"|".join(_FRACTIONS.split())})(?![A-Za-z])
    | [\ -](?:{"|".join(_FRACTIONS.split())}|{"|".join(MAGNITUDES)})(?![A-Za-z])
    | \ *(?:{"|".join(_PARTS.split())}),?\ +(?:and\ +)?[{CURRENCY}]?\ ?[0-9]
    | \ *[十百千万亿兆億萬]
    | [A-Za-z\ ]{{1,80}}{_OPERATOR}\ ?[$(]?[0-9]          # 18 a day * 7
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PART_OF = re.compile(  # what makes a number a part of something else when it stands before
    rf"""
      (?: [\w^.,:/'\\)\]}}-] | [0-9$)}}\]*_]\s*[,;] \s* | [0-9$] \ +: \ +
    | (?:[+*/^<>~]|\\times|\\cdot|\\div|\\sqrt|-\ )\ *
    | [0-9$)}}\]*_] \s* (?:\\text\{{)? \s* (?:x|by|or|and|to|of|in|over|plus|minus|times) \s* }}? \s*
    | [0-9] \ * (?:{"|".join(_PARTS.split())}) ,? (?:\ +and)? \ +
    )$""",
    re.VERBOSE | re.IGNORECASE,
)
_MAY_FOLLOW = re.compile(rf"(?:{_WORD}|[^\w]|_|$)")


class Stated(NamedTuple):
    """A number that a text states.

    Args:
        value: exactly; None if something is there that is no one number, or cannot be told.
        ratio: whether it was written as a fraction.
        end: where it ends in the text.
    """

    value: Fraction | None
    ratio: bool = False
    end: int = 0


UNCLEAR = Stated(None)


def stated_number(text: str, place: int = 0, equations: bool = True) -> Stated | None:
    """The number that a tidy text states from a place on; None if none begins there.

    Args:
        text: a tidy one.
        place: where to begin; white space, brackets, marks of LaTeX and Markdown, and currencies are looked through.
        equations: of ``2 + 3 = 5`` take the number that every readable side has.
    """
    begin = _OPEN.match(text, place).end()  # type: ignore[union-attr]
    if (signs := _SIGNED.match(text, begin)) is None:
        return None
    in_math = any(mark in text[place:begin] for mark in ("$", "\\(", "\\[", "\\boxed"))
    if signs["sign"] and signs["minus"]:
        return UNCLEAR
    read = number_at(text, signs.end())
    if read is not None and re.search(r"(?<!\\)[(\[]", text[place:begin]) and "," in text[signs.end() : read.end]:
        return UNCLEAR  # (1,234) may be a point
    found = _alone(text, read, "-" in signs[0], in_math)
    return _of_equation(text, begin) if found.value is None and equations else found


def last_number(text: str) -> Stated | None:
    """The last number of a tidy text; None without any."""
    if (last := next(iter(deque(_CANDIDATE.finditer(text), maxlen=1)), None)) is None:
        return None
    before = text[max(0, last.start() - FAR // 8) : last.start()]
    signs = _BEFORE.fullmatch(before)
    assert signs is not None
    prior, sign = before[: signs.start("sign")], signs["sign"] or signs["minus"]
    if signs["sign"] and signs["minus"]:
        return UNCLEAR
    if sign and re.search(r"[0-9)\]}] +$", prior):  # a difference
        return UNCLEAR
    if _PART_OF.search(prior):
        return UNCLEAR
    return _alone(text, number_at(text, last.start()), sign == "-", "$" in before)


def whole_number(text: str) -> Stated | None:
    """The number that a tidy text is, and nothing more than dressing and a full stop; None for anything else."""
    signs = _SIGNED.match(text, _OPEN.match(text).end())  # type: ignore[union-attr]
    if signs is None or (signs["sign"] and signs["minus"]) or (read := number_at(text, signs.end())) is None:
        return None
    if not re.fullmatch(r"\s*\.?\s*", text[_CLOSE.match(text, read.end).end() :]):  # type: ignore[union-attr]
        return None
    if any(text.count(opens) != text.count(closes) for opens, closes in ("()", "[]", "{}")):
        return None
    return Stated(-read.value if "-" in signs[0] else read.value, read.ratio, read.end)


def begins_a_line(text: str, end: int, alone: bool) -> bool:
    """Whether a number that ends here numbers an item of a list or a heading (``1. First``).

    Args:
        text: a tidy one.
        end: where the number ends.
        alone: it does too if it has more after it than a unit.
    """
    line = text[end : end + FAR].partition("\n")[0]
    return bool(_MARK.match(line)) or (alone and not _BUT_FOR_A_UNIT.fullmatch(line[_CLOSE.match(line).end() :]))  # type: ignore[union-attr]


def _alone(text: str, read: Read | None, negative: bool, in_math: bool) -> Stated:
    """The number, if what follows leaves it one."""
    if read is None:
        return UNCLEAR
    value, end = read.value, read.end
    if (large := _MAGNITUDE.match(text, end)) is not None:
        value, end = value * MAGNITUDES[large[1].lower()], large.end()
    if text.startswith("!", end) and (in_math or not re.match(r"!+(?=[\s*\"'”]|$)", text[end : end + FAR])):
        return UNCLEAR  # a factorial
    close = _CLOSE.match(text, end).end()  # type: ignore[union-attr]
    rest = text[close : close + FAR].partition("\n")[0]
    if _GOES_ON.match(rest) or not _MAY_FOLLOW.match(rest):
        return UNCLEAR
    if (word := re.match(r" +([A-Za-z])(?![A-Za-z0-9'\u2019])", rest)) and word[1] not in _SHORT_UNITS.split():
        return UNCLEAR  # 5 x
    return Stated(-value if negative else value, read.ratio, end)


def _of_equation(text: str, place: int) -> Stated:
    """The number that all readable sides of an equation have."""
    run = _ARITHMETIC.match(text, place, place + FAR)[0]  # type: ignore[index]
    *sides, last = run.split("=")
    known = [found for side in sides if (found := whole_number(side)) is not None]
    if (
        sides
        and (final := stated_number(text, place + len(run) - len(last), equations=False))
        and final.value is not None
    ):
        known.append(final)
    if not sides or len({found.value for found in known}) != 1:
        return UNCLEAR
    return known[-1]
