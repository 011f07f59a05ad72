"""Final answers of solutions: where they stand in a text, and when two of them are the same.

Numbers (GSM8K) are read here and compared exactly. Mathematics (MATH) is found here too, but understood by math-verify
in a process of its own (text/answer_worker.py), for sympy may take for ever. No text is ever executed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

from text.answer_worker import AnswerWorker
from text.errors import UserError

CURRENCY = "$€£¥"
REMEMBERED = 100_000  # verdicts of a MathChecker

_RUN = r"(?=[.,]*[0-9])[0-9.,]+(?:/[0-9]+)?"
_VALUE = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:/[0-9]+)?")
_NUMBER = re.compile(r"-?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_MARKED = re.compile(r"\$|\\boxed|(?<!\\)\\[(\[]")  # LaTeX that says itself where it begins
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_PROSE = re.compile(r"(?:^|\s)[A-Za-z]{2,}(?=[\s.,;:!?]|$)")


class AnswerChecker(ABC):
    """Finds the final answer of a solution and compares it with the right one."""

    def __repr__(self) -> str:
        """As messages name it."""
        return type(self).__name__

    @abstractmethod
    def extract(self, text: str) -> str | None:
        """The final answer of a solution; None if it has none that can be read."""

    @abstractmethod
    def equal(self, a: str | None, b: str | None) -> bool:
        """Whether answer ``b`` is as good as the right one, ``a``. None equals nothing, not even None."""


class NumberChecker(AnswerChecker):
    """Numbers after a fixed phrase, as in GSM8K (arXiv 2110.14168), compared exactly.

    The official extraction of arXiv 2404.10346, made kinder where it errs: punctuation behind the number is no part of
    it (``1,080.50.`` is 1080.5, not 1080.50), one sign of a currency before it is skipped, ``1/2`` is a half.

    Args:
        prefixes: phrases that announce the answer; the first place in the text where a number follows one counts. A
            colon and spaces may stand between.
    """

    def __init__(self, prefixes: Sequence[str] = ("The answer is", "####")):
        self.prefixes = tuple(prefixes)
        if not all(self.prefixes) or not self.prefixes:
            raise UserError("NumberChecker: give 'prefixes', the words before the answer, and none of them empty")
        announced = "|".join(map(re.escape, self.prefixes))
        self._announced = re.compile(rf"(?:{announced}):? *(?P<sign>-?)[{CURRENCY}]?(?P<minus>-?)(?P<run>{_RUN})")

    def __repr__(self) -> str:
        """As messages name it: what an answer has to follow."""
        return f"NumberChecker({', '.join(map(repr, self.prefixes))})"

    def extract(self, text: str) -> str | None:
        """The number in plain digits: no thousands commas, no zeros at the end of its decimals."""
        if (found := self._announced.search(text)) is None:
            return None
        written = _plain((found["sign"] or found["minus"]) + found["run"])
        return written if _value(written) is not None else None

    def equal(self, a: str | None, b: str | None) -> bool:
        """Whether two written numbers have one value; what is no number equals nothing."""
        return a is not None and b is not None and (value := _value(a)) is not None and value == _value(b)


class MathChecker(AnswerChecker):
    """Mathematics in LaTeX, as in MATH (arXiv 2103.03874): math-verify decides, within a limit of time.

    Args:
        timeout: seconds of computing per comparison. What takes longer is not equal, and is counted.

    Attributes:
        timeouts: comparisons that were given up so far.
    """

    def __init__(self, timeout: float = 5.0):
        if timeout <= 0:
            raise UserError(f"MathChecker: timeout is {timeout}, but must be more than 0 seconds")
        self.timeout = timeout
        self._worker = AnswerWorker(timeout)
        self._verdicts: dict[tuple[str, str], bool] = {}

    @property
    def timeouts(self) -> int:
        """Comparisons that were given up so far."""
        return self._worker.timeouts

    def extract(self, text: str) -> str | None:
        r"""The answer as it was written, without dollars and full stop (rules of arXiv 2404.10346's code, in order).

        What follows ``final answer is $``; the last ``\boxed{...}``; the line after the last ``he answer is``; the last
        number.
        """
        if "final answer is $" in text:
            text = text.rpartition("final answer is $")[2].partition("$")[0]
            return _stripped(last_boxed(text) or text)
        if (boxed := last_boxed(text)) is not None:
            return _stripped(boxed)
        if "he answer is" in text:
            return _stripped(text.rpartition("he answer is")[2].lstrip(": ").partition("\n")[0])
        numbers = _NUMBER.findall(text)
        return numbers[-1] if numbers else None

    def equal(self, a: str | None, b: str | None) -> bool:
        """Whether ``b`` equals the gold answer ``a``; the relation need not be symmetric.

        Signs of currencies and percent are taken for units and ignored: 50% is 50, not 0.5.
        """
        gold, answer = ("" if written is None else written.strip() for written in (a, b))
        if not gold or not answer or gold == answer:
            return bool(gold) and bool(answer)
        words = _words(gold), _words(answer)
        if any(words):  # sympy would take letters for a product
            return words[0] == words[1]
        values = _value(gold), _value(answer)
        if all(value is not None and value.denominator == 1 for value in values):
            return values[0] == values[1]  # most comparisons need no sympy
        if (gold, answer) not in self._verdicts:
            if len(self._verdicts) >= REMEMBERED:
                self._verdicts.clear()
            self._verdicts[gold, answer] = self._worker.equal(_readings(gold), _readings(answer))
        return self._verdicts[gold, answer]


def _plain(run: str) -> str:
    """A run of digits, points and commas as a plain number, where it is one."""
    whole, slash, below = run.rstrip(".,").replace(",", "").partition("/")
    if "." in whole:
        whole = whole.rstrip("0").rstrip(".")
    sign = "-" if whole.startswith("-") else ""
    digits = whole.removeprefix("-")
    return sign + ("0" + digits if digits.startswith(".") else digits or "0") + slash + below


def _value(written: str) -> Fraction | None:
    """The exact value of a number; None where it is none, or has more digits than Python reads."""
    bare = written.strip().rstrip(".,").replace(",", "")
    bare = re.sub(rf"^(-?)[{CURRENCY}]", r"\1", bare)
    if not _VALUE.fullmatch(bare):
        return None
    whole, _, below = bare.partition("/")
    try:
        return Fraction(whole) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed holds, with its own braces; None where there is none, or it is never closed."""
    if not (boxes := list(_BOX.finditer(text))):
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):  # \boxed 5
        return (re.match(r"[^\s$]+", rest) or [None])[0]
    depth = 0
    for place, sign in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if not depth:
            return rest[1:place]
    return None


def _stripped(answer: str) -> str | None:
    """Without white space, the full stop of the sentence, and dollars around the whole."""
    answer = answer.strip().removesuffix(".").strip()
    for begin, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inner = answer[len(begin) : -len(end)]
        if answer.startswith(begin) and answer.endswith(end) and inner and begin not in inner:
            answer = inner.strip().removesuffix(".").strip()
    return answer or None


def _readings(answer: str) -> list[str]:
    """How math-verify may read an answer, which takes mathematics only from between dollars, and numbers from prose.

    Prose is not put between dollars while it can be read without: letters would become a product of symbols.
    """
    answer = re.sub(r"\\?%|\\\$", "", answer)
    answer = re.sub(r"\\(?:text|mbox)\{\s*(?:and|or)\s*\}", ",", answer)
    if answer.count("$") == 1:  # a currency
        answer = answer.replace("$", "")
    if _MARKED.search(answer):
        return [answer]
    readings = [f"${answer}$", answer]
    return readings[::-1] if _PROSE.search(answer) else readings


def _words(answer: str) -> str | None:
    r"""An answer that consists of words, or has some in \text; None if it is mathematics."""
    bare = re.sub(r"\\(?:text|textbf|mbox|mathrm)\{([^{}]*)\}", r"\1", answer.replace("$", ""))
    words = " ".join(bare.split()).casefold()
    return words if re.fullmatch(r"[a-z]{3,}( [a-z0-9]+)*", words) else None
