r"""Numbers as people and models write them, read exactly: the right value, or none.

``1,080.50``, ``100 000``, ``3 1/2``, ``\frac{7}{2}``, ``2.5e3``, ``6 \times 10^{23}``, ``0.\overline{3}`` and ``½`` are
read. This file knows how a number is spelt. It does not know what may stand around one
(text/reasoning/stated_numbers.py), nor which number of a text counts (text/reasoning/answers.py).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

MOST_DIGITS = 4000  # of a number; Python itself reads 4,300

# --- one spelling for each character ---------------------------------------------------------------------------------

_DASHES = "\u2010\u2011\u2012\u2013\u2212\u207b\ufe63\uff0d\u2796"  # no em dash: it is punctuation
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_NOTHING = "\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u2061\u2062\u2063\u2064"
_SIGNS = {
    "\u2044": "/",  # of fractions
    "\u2215": "/",
    "\u00d7": r"\times ",
    "\u2715": r"\times ",
    "\u00b7": r"\cdot ",
    "\u2219": r"\cdot ",
    "\u22c5": r"\cdot ",
    "\u00f7": r"\div ",
    "\u00b1": r"\pm ",
    "\u221a": r"\sqrt ",
    "\u03c0": r"\pi ",
    "\u221e": r"\infty ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u00b0": r"^\circ ",
    "\u2205": r"\emptyset ",
    "\u2208": r"\in ",
}
_CHARACTERS = {
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _NOTHING)),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF0D},
    **{ord(sign): written for sign, written in _SIGNS.items()},
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_ROOT = re.compile(r"√ ?(?:([0-9]+(?:\.[0-9]+)?|[a-z](?![a-z]))|\(([^()√]*)\))")


def tidy(text: str) -> str:
    r"""One spelling for what has many: minus signs, digits of all scripts, spaces, ``½``, ``²``, ``₂``, ``√2``."""
    text = re.sub(f"[{_VULGAR}]", lambda found: " " + unicodedata.normalize("NFKC", found[0]), text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found[0].translate(_RAISED)}}}", text)
    text = re.sub(r"[₀-₉]+", lambda found: f"_{{{found[0].translate(_LOWERED)}}}", text)
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = re.sub(r"[^\D0-9]", lambda found: str(unicodedata.decimal(found[0])), text.translate(_CHARACTERS))
    text = re.sub(r"\\[!]|\{,\}", lambda found: "," if found[0] == "{,}" else "", text)
    return re.sub(r"(?<!\\)\\(?:[,;: ]|left(?![a-z])|right(?![a-z]))", lambda found: " " * (len(found[0]) == 2), text)


# --- how a number is spelt -------------------------------------------------------------------------------------------

_GROUPED = r"[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9])"
_PLAIN = rf"(?:(?:{_GROUPED}|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_POWER = r"(?:\^|\*\*) ?(?:(?P<{0}>-?[0-9]+)|\{{ ?(?P<{0}b>[+-]?[0-9]+) ?\}}|\((?P<{0}p>-?[0-9]+)\))"
_TIMES = r" {0,3}(?:\\times|\\cdot|[x*]) {0,3}"
_FRAC = r"\\[dtc]?frac ?(?:\{{ ?(?P<{0}>-?[0-9]+) ?\}}|(?P<{0}d>[0-9])) ?(?:\{{ ?(?P<{1}>[0-9]+) ?\}}|(?P<{1}d>[0-9]))"
NUMBER = "|".join(
    (
        rf"(?P<scaled>{_PLAIN}){_TIMES}10" + _POWER.format("ten"),
        rf"(?P<mantissa>{_PLAIN})[eE](?P<exponent>[+-]?[0-9]+)",
        rf"(?P<base>{_PLAIN})" + _POWER.format("power"),
        r"(?P<mixed>[0-9]+)(?: +|\\ )(?P<over>[0-9]+)/(?P<under>[0-9]+)",
        r"(?P<whole>[0-9]+)? ?" + _FRAC.format("top", "bottom"),
        rf"(?P<dividend>{_PLAIN}) ?/ ?(?P<divisor>{_PLAIN})",
        r"(?P<start>[0-9]*\.[0-9]*)\\(?:overline|bar|dot) ?(?:\{(?P<period>[0-9]+)\}|(?P<periodd>[0-9]))",
        rf"(?P<plain>{_PLAIN})",
    )
)
_NUMBER = re.compile(NUMBER)


class Read(NamedTuple):
    """A number that was read.

    Args:
        value: exactly.
        ratio: whether it was written as one, so that it is written as one again.
        end: where it ends in the text.
    """

    value: Fraction
    ratio: bool
    end: int


def number_at(text: str, place: int = 0) -> Read | None:
    """The longest unsigned number that begins at a place of a tidy text, whatever follows; None where none does.

    Also None for what has no value (``1/0``), or more than MOST_DIGITS digits.
    """
    if (found := _NUMBER.match(text, place)) is None:
        return None
    try:
        value = _value(found.groupdict())
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    as_ratio = any(found[name] for name in ("over", "top", "topd", "divisor", "period", "periodd"))
    return Read(value, as_ratio, found.end())


def _value(part: dict[str, str | None]) -> Fraction:
    """The value of what was matched.

    Raises:
        ValueError: it has too many digits.
        ZeroDivisionError: it has none.
    """
    if (scaled := part["scaled"]) is not None:
        return _plain(scaled) * _raised(Fraction(10), part["ten"] or part["tenb"] or part["tenp"])
    if (mantissa := part["mantissa"]) is not None:
        return _plain(mantissa) * _raised(Fraction(10), part["exponent"])
    if (base := part["base"]) is not None:
        return _raised(_plain(base), part["power"] or part["powerb"] or part["powerp"])
    if (mixed := part["mixed"]) is not None:
        return _mixed(mixed, _plain(part["over"]), _plain(part["under"]))
    if (top := part["top"] or part["topd"]) is not None:
        bottom = _plain(part["bottom"] or part["bottomd"])
        return _mixed(part["whole"], _plain(top), bottom) if part["whole"] else _plain(top) / bottom
    if (dividend := part["dividend"]) is not None:
        return _plain(dividend) / _plain(part["divisor"])
    if (period := part["period"] or part["periodd"]) is not None:
        start = part["start"] or "."
        shift = 10 ** len(start.partition(".")[2])
        return _plain(start + "0") + Fraction(int(period), 10 ** len(period) - 1) / shift
    return _plain(part["plain"])


def _plain(written: str | None) -> Fraction:
    digits = (written or "").replace(",", "").replace(" ", "")
    if len(digits) > MOST_DIGITS:
        raise ValueError("too many digits")
    return Fraction(digits)


def _raised(base: Fraction, exponent: str | None) -> Fraction:
    power = int(exponent or 0) if len(exponent or "") < 6 else MOST_DIGITS
    if len(str(max(base.numerator, base.denominator))) * abs(power) > MOST_DIGITS:
        raise ValueError("too many digits")
    return base**power


def _mixed(whole: str | None, over: Fraction, under: Fraction) -> Fraction:
    """A whole number and a fraction beside it; beside a fraction above 1 it may as well be a product."""
    if not 0 < over < under:
        raise ValueError("no mixed number")
    return _plain(whole) + over / under


def written(value: Fraction, ratio: bool = False) -> str:
    """A number in plain digits; as a fraction if it was one or is no decimal."""
    below = value.denominator
    twos = (below & -below).bit_length() - 1
    rest, fives = below >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if ratio or rest != 1:
        return str(value)
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // below).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"
