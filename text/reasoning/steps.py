"""Steps of a solution, and where they end among its tokens (arXiv 2404.10346, section 3.2 and its code).

Steps are cut out of a text and nothing is rewritten: put together they are the text again. So a step that was sampled
as tokens is known as tokens.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, pairwise

from text.errors import UserError

ANSWER = "The answer is"
CONNECTORS = (",$", ", which", " so", " = ", " and", "Thus", "=")

# three words, or two around a number: "five apples" and "New York City" are answers
_SENTENCE_BEGINS = r"[\s:*]*[a-z][^\W\d_]* +[^\W\d_]+ +(?:[\d.,]+ +)?[^\W\d_]"
_ANNOUNCED = re.compile(rf"{ANSWER}(?!{_SENTENCE_BEGINS})")
_REST = re.compile(r"(?:\*\*)?:?(?:\*\*)?\s*(?:\$\$.*?\$\$|\\\[.*?\\\])?[^\n]*", re.DOTALL)
_SENTENCE = re.compile(r"\n|\.\$\s+|\$\.\s+")


class StepSplitter(ABC):
    """Cuts a solution into steps."""

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """The steps in order. None of them is empty, and together they are ``text``."""


class LineSteps(StepSplitter):
    """One line, one step, as in GSM8K; blank lines and the line break belong to the step before them."""

    def split(self, text: str) -> list[str]:
        """The lines that say something. Text that says nothing at all is one step."""
        return _joined(text.split("\n"), "\n")


class RegexSteps(StepSplitter):
    """A step ends wherever a pattern matches.

    Args:
        pattern: of what ends a step, and belongs to it.
    """

    def __init__(self, pattern: str):
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise UserError(f"RegexSteps: 'pattern' {pattern!r} is no regular expression: {error}") from error

    def split(self, text: str) -> list[str]:
        """The parts between the ends of matches; what is only white space joins the step before it."""
        return _joined(_cut(text, [found.end() for found in self.pattern.finditer(text)]))


class MathSteps(StepSplitter):
    r"""Sentences of a solution in LaTeX, evened out, as for MATH; the answer is a step of its own.

    Lines and sentences that end in mathematics (``.$ ``, ``$. ``) are parts. Short parts join a neighbour, most of all
    until there are few enough. Text from ``The answer is`` on becomes the last step. Where only three steps or fewer
    are left, each is halved after the connector nearest to its middle.

    Args:
        max_parts: most parts before the answer is cut off.
        min_chars: shorter parts join the one before, and no halving leaves less.
        short_ratio: parts shorter than this share of the mean join their shorter neighbour.
    """

    def __init__(self, max_parts: int = 9, min_chars: int = 20, short_ratio: float = 0.3):
        if max_parts < 1 or min_chars < 0 or not 0 <= short_ratio < 1:
            raise UserError(
                f"MathSteps: max_parts {max_parts} must be 1 or more, min_chars {min_chars} 0 or more,"
                f" short_ratio {short_ratio} in [0, 1)"
            )
        self.max_parts, self.min_chars, self.short_ratio = max_parts, min_chars, short_ratio

    def split(self, text: str) -> list[str]:
        """The steps, by the rules above."""
        parts: list[str] = []
        for part in _cut(text, [found.end() for found in _SENTENCE.finditer(text)]):
            if parts and (len(part) < self.min_chars or not part.strip()):
                parts[-1] += part
            else:
                parts.append(part)
        parts = self._even(parts)
        while len(parts) > self.max_parts:
            _join_shorter(parts, min(range(len(parts)), key=lambda place: len(parts[place])))
        steps = self._answer_apart(parts)
        return steps if len(steps) > 3 else [half for step in steps for half in self._halves(step)]

    def _even(self, parts: list[str]) -> list[str]:
        """Without parts that are short beside the others, whose mean length is that of before."""
        least = self.short_ratio * sum(map(len, parts)) / max(len(parts), 1)
        place = 0
        while place < len(parts):
            if len(parts) > 1 and len(parts[place]) < least:
                place = _join_shorter(parts, place)
            else:
                place += 1
        return parts

    def _answer_apart(self, parts: list[str]) -> list[str]:
        if not parts or (begin := parts[-1].find(ANSWER)) <= 0:
            return parts
        *before, last = parts
        if begin < self.min_chars and before:
            return [*before[:-1], before[-1] + last[:begin], last[begin:]]
        return [*before, last[:begin], last[begin:]]

    def _halves(self, step: str) -> list[str]:
        ends = [found.end() for connector in CONNECTORS for found in re.finditer(re.escape(connector), step)]
        middle = min(sorted(ends), key=lambda end: abs(2 * end - len(step)), default=0)
        if min(middle, len(step) - middle) <= self.min_chars:
            return [step]
        return [step[:middle], step[middle:]]


def up_to_answer(text: str) -> str:
    r"""A solution without what follows the line of its answer: models that do not end go on with other questions.

    The answer is the first that is announced, unless the first ``\boxed`` follows in its paragraph: a sentence (`The
    answer is the sum of ...`) or a formula on the way may begin so too. It may stand on a later line than the phrase,
    or be a formula of several lines. A text that announces none is left whole.
    """
    for phrase in _ANNOUNCED.finditer(text):
        end = _REST.match(text, phrase.end()).end()  # type: ignore[union-attr]  # it matches anywhere
        if r"\boxed" in text[:end] or r"\boxed" not in text[end:].partition("\n\n")[0]:
            return text[:end]
    return text


def step_ends(steps: Sequence[str], token_ends: Sequence[int]) -> tuple[list[int], int]:
    """Where steps end among tokens.

    Args:
        steps: of a text, which together they are.
        token_ends: how many characters of the text are told by the tokens up to each one, ascending.

    Returns: for each step how many tokens the text has up to its end, and how many of these ends lie within a token and
    moved right to its end. Ends may coincide where steps share a token.
    """
    ends, moved, place = [], 0, 0
    for end in accumulate(map(len, steps)):
        while place < len(token_ends) and (place == 0 or token_ends[place - 1] < end):
            place += 1
        ends.append(place)
        moved += place > 0 and token_ends[place - 1] > end
    return ends, moved


def _cut(text: str, ends: Sequence[int]) -> list[str]:
    """The text in parts with these ends; none is empty."""
    places = sorted({0, len(text), *ends})
    return [text[begin:end] for begin, end in pairwise(places)]


def _joined(parts: Sequence[str], between: str = "") -> list[str]:
    """Parts that say something, each with what was between it and the next, and the silent parts after it."""
    steps: list[str] = []
    for number, part in enumerate(parts):
        part += between if number + 1 < len(parts) else ""
        if steps and (not part.strip() or not steps[-1].strip()):
            steps[-1] += part
        elif part:
            steps.append(part)
    return steps


def _join_shorter(parts: list[str], place: int) -> int:
    """Join a part to its shorter neighbour (the later one of two alike), in place; returns where it is now."""
    last = place == len(parts) - 1
    if place > 0 and (last or len(parts[place - 1]) < len(parts[place + 1])):
        parts[place - 1 : place + 1] = [parts[place - 1] + parts[place]]
        return place - 1
    parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return place
