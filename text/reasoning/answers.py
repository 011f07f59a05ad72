"""Final answers of solutions: where they stand in a text, and when two of them are the same.

Numbers (GSM8K) are read here and compared exactly. Mathematics (MATH) is found here too, but understood by math-verify
in a process of its own (text/reasoning/answer_worker.py), for sympy may take for ever. No text is ever executed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from text.errors import UserError
from text.reasoning.answer_lists import (
    LIST,
    ONE,
    PROSE,
    SET,
    THOUSANDS,
    TUPLE,
    UNORDERED,
    Parts,
    based_value,
    has_base,
    parts_of,
    undressed,
)
from text.reasoning.answer_worker import AnswerWorker
from text.reasoning.numbers import tidy, written
from text.reasoning.stated_numbers import Stated, begins_a_line, last_number, stated_number, whole_number

REMEMBERED = 100_000  # verdicts of a MathChecker
LONGEST = 10_000  # characters of an answer; a longer one equals only itself
MOST_ITEMS = 12  # of an unordered list whose items are no numbers

_MARKED = re.compile(r"\$|\\boxed|(?<!\\)\\[(\[]")  # LaTeX that says itself where it begins
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_GROUPS = re.compile(r"(?<![0-9.])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])")
_SIDE_BY_SIDE = re.compile(r"[0-9] [0-9]")
_BEGUN = re.compile(r"(?:\s|:|\*\*(?=[\s:]|$))*")
_FORMULAS = re.compile(r"[^$]*(?:\$(?:[,;]| ?,? ?(?:and|or)(?![A-Za-z])) ?\$[^$]*)*")  # several are a list
_DISPLAYED = re.compile(r"\$\$(?P<dollars>.*?)\$\$|\\\[(?P<brackets>.*?)\\\]", re.DOTALL)


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

    The official extraction of arXiv 2404.10346, made kinder where it errs and careful where it guesses: a number counts
    whatever it is dressed in (``**$1,080.50**.`` is 1080.5), and only if it stands by itself (``3,4`` is none). What is
    read and what is not is listed in docs/self_explore.md.

    Args:
        prefixes: phrases that announce the answer. The first place in the text where a number follows one counts, even
            if that number cannot be told. Colons, line breaks and marks may stand between. Phrases are looked for as
            they are, then in small and capital letters alike. After a mark such as ``####`` the number must be all that
            its line says, give or take a unit: headings begin so too.
    """

    def __init__(self, prefixes: Sequence[str] = ("The answer is", "####")):
        self.prefixes = tuple(prefixes)
        if not all(self.prefixes) or not self.prefixes:
            raise UserError("NumberChecker: give 'prefixes', the words before the answer, and none of them empty")
        announced = "|".join(rf"(?<!#){re.escape(one)}" if one[0] == "#" else re.escape(one) for one in self.prefixes)
        phrases = "|".join(re.escape(one) for one in self.prefixes if len(one) > 1 and one[0].isalpha())
        self._announced = [re.compile(announced)] + [re.compile(phrases, re.IGNORECASE)] * bool(phrases)

    def __repr__(self) -> str:
        """As messages name it: what an answer has to follow."""
        return f"{type(self).__name__}({', '.join(map(repr, self.prefixes))})"

    def extract(self, text: str) -> str | None:
        """The number in plain digits: no thousands commas, no zeros at the end of its decimals, or a fraction."""
        text = tidy(text)
        for announced in self._announced:
            for phrase in announced.finditer(text):
                stated = stated_number(text, phrase.end())
                if stated is not None and not _heads(text, phrase, stated):
                    return None if stated.value is None else written(stated.value, stated.ratio)
        return None

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

        What follows ``final answer is $``; the last ``\boxed{...}``; the line, or the displayed formula, after the last
        ``he answer is``; the last number, in plain digits, if it stands by itself.
        """
        if "final answer is $" in text:
            final = f"${_FORMULAS.match(text.rpartition('final answer is $')[2])[0]}$"  # type: ignore[index]
            return undressed(last_boxed(final) or final) or None
        if (boxed := last_boxed(text)) is not None:
            return undressed(boxed) or None
        if "he answer is" in text:
            rest = _BEGUN.sub("", text.rpartition("he answer is")[2], count=1)
            displayed = _DISPLAYED.match(rest)
            line = displayed["dollars"] or displayed["brackets"] or "" if displayed else rest.partition("\n")[0]
            return undressed(line) or None
        stated = last_number(tidy(text))
        return None if stated is None or stated.value is None else written(stated.value, stated.ratio)

    def equal(self, a: str | None, b: str | None) -> bool:
        """Whether ``b`` equals the gold answer ``a``; the relation need not be symmetric.

        Numbers are compared exactly; lists item by item: those in brackets in their order, sets and bare lists in any.
        math-verify is asked about the rest. Signs of currencies and percent are taken for units and ignored: 50% is
        50, not 0.5.
        """
        gold, answer = ("" if one is None else _bare(one) for one in (a, b))
        if not gold or not answer or gold == answer:
            return bool(gold) and bool(answer)
        if max(len(gold), len(answer)) > LONGEST:
            return False
        words = _words(gold), _words(answer)
        if any(words):  # sympy would take letters for a product
            return words[0] == words[1]
        if has_base(gold) or has_base(answer):
            values = [_value(one) if (based := based_value(one)) is None else based for one in (gold, answer)]
            return values[0] is not None and values[0] == values[1]
        parts = parts_of(gold), parts_of(answer)
        if None not in parts and (same := self._same(*parts)) is not None:  # type: ignore[arg-type]
            return same
        gold, answer = (
            THOUSANDS.sub(lambda found: found[0].replace(",", ""), one) if of and of.kind == ONE else one
            for one, of in zip((gold, answer), parts, strict=True)
        )
        if _SIDE_BY_SIDE.search(gold) or _SIDE_BY_SIDE.search(answer):  # the library would add or multiply them
            return False
        if (gold, answer) not in self._verdicts:
            if len(self._verdicts) >= REMEMBERED:
                self._verdicts.clear()
            self._verdicts[gold, answer] = self._worker.equal(_readings(gold), _readings(answer))
        return self._verdicts[gold, answer]

    def _same(self, gold: Parts, answer: Parts) -> bool | None:
        """What can be told from the parts; None where a library has to tell."""
        if gold.name and answer.name and gold.name != answer.name:
            return False
        if gold.kind == answer.kind == ONE:
            values = _value(gold.items[0]), _value(answer.items[0])
            return None if None in values else values[0] == values[1]
        if ONE in (gold.kind, answer.kind):
            one, many = (gold, answer) if gold.kind == ONE else (answer, gold)
            if many.kind in UNORDERED and len(many.items) == 1:
                return self.equal(gold.items[0], answer.items[0])
            return None if _value(one.items[0]) is None else False
        if gold.kind in UNORDERED and answer.kind in UNORDERED:
            return self._alike(gold.items, answer.items, SET in (gold.kind, answer.kind))
        if gold.kind != answer.kind and {gold.kind, answer.kind} != {LIST, TUPLE}:
            return False
        pairs = zip(gold.items, answer.items, strict=False)
        return len(gold.items) == len(answer.items) and all(self.equal(one, other) for one, other in pairs)

    def _alike(self, gold: Sequence[str], answer: Sequence[str], as_sets: bool) -> bool | None:
        """Whether two lists have the same items in any order; of sets it does not matter how often."""
        values = [[_value(item) for item in items] for items in (gold, answer)]
        if None not in values[0] + values[1]:
            return set(values[0]) == set(values[1]) if as_sets else Counter(values[0]) == Counter(values[1])
        if max(len(gold), len(answer)) > MOST_ITEMS:
            return None
        if as_sets:
            return all(any(self.equal(g, a) for a in answer) for g in gold) and all(
                any(self.equal(g, a) for g in gold) for a in answer
            )
        left = list(answer)
        for item in gold:
            match = next((place for place, other in enumerate(left) if self.equal(item, other)), None)
            if match is None:
                return False
            del left[match]
        return not left


def _bare(answer: str) -> str:
    """A tidy answer without its dressing; no spaces between groups of digits."""
    return _GROUPS.sub(lambda found: found[0].replace(" ", ""), undressed(" ".join(tidy(answer).split())))


@lru_cache(maxsize=1 << 16)
def _value(number: str) -> Fraction | None:
    """The exact value of a written number; None where it is none, or has too many digits."""
    stated = whole_number(tidy(number))
    return None if stated is None else stated.value


def _heads(text: str, phrase: re.Match[str], stated: Stated) -> bool:
    """Whether a number after a mark, or on a line of its own, is that of a heading or a list."""
    mark = not any(map(str.isalpha, phrase[0]))
    if not stated.end or not (mark or "\n" in text[phrase.end() : stated.end]):
        return False
    return begins_a_line(text, stated.end, mark)


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
    return readings[::-1] if PROSE.search(answer) else readings


def _words(answer: str) -> str | None:
    r"""An answer that consists of words, or has some in \text; None if it is mathematics."""
    bare = re.sub(r"\\(?:text|textbf|mbox|mathrm)\{([^{}]*)\}", r"\1", answer.replace("$", ""))
    words = " ".join(bare.split()).casefold()
    return words if re.fullmatch(r"[a-z]{3,}( [a-z0-9]+)*", words) else None
