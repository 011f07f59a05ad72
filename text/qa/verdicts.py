"""What a model's words come to: candidates, an answer, True or False, the better passage; or nothing. Never a guess.

A verdict is the first one in the first line that says something. This file knows strings. It does not know what was
asked (text/qa/prompts.py), nor what verdicts decide (modules/sure/selection.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Literal, NamedTuple

from text.qa.answers import normalise_answer

Form = Literal["ok", "unmarked", "single", "empty"]
END = "[DONE]"  # of a summary

_MARKER = re.compile(r"(?:^|(?<=[\s,;*]))\(([a-z])\)", re.IGNORECASE)
_GLUED = re.compile(r"\(([a-z])\)(?=\S)", re.IGNORECASE)  # "(a)x(b)y"; "f(b) is odd" has none
_TRUTH = re.compile(r"(\bnot\s+|n['\u2019]t\s+)?\b(true|yes|false|no)\b", re.IGNORECASE)
_PASSAGE = re.compile(r"\bpassage\s*#?\s*(\d+)\b", re.IGNORECASE)
_SLOT = re.compile(r"\b[12]\b")
_NUMBER = re.compile(r"\W*(\d+)\W*")
_CONCLUSION = re.compile(r"\bthe answer is\b:?", re.IGNORECASE)
NOTHING = {"", "na", "none", "unknown"}  # normalised
QUOTES = "\"'`*\u201c\u201d\u2018\u2019 \t"  # and what makes words bold
MOST_PARTS = 4  # a list of more is a sentence


class Candidates(NamedTuple):
    """Answers that were proposed.

    Args:
        texts: different ones, in their order.
        form: ``ok``; ``unmarked``: without "(a)"; ``single``: one is left; ``empty``: none.
    """

    texts: list[str]
    form: Form


def parse_candidates(text: str, k: int) -> Candidates:
    """The first k candidates of "(a) ..., (b) ...".

    Each ends at its line, and loses quotes and closing ``.,;`` (so "D.C." becomes "D.C", which is the same answer once
    normalised). Where marks do not follow one another, they may also be glued to words, or stand in another order.
    Without "(a)" the first line is one candidate, or its parts between commas if these are 4 at most.

    Args:
        text: what a model wrote.
        k: candidates that are kept.
    """
    marks = max((_ascending(text, _MARKER), _ascending(text, _GLUED), _in_any_order(text)), key=len)
    if marks:
        begins = sorted(mark.start() for mark in marks)
        ends = dict(zip(begins, [*begins[1:], len(text)], strict=True))
        found = [text[mark.end() : ends[mark.start()]] for mark in marks]
    else:
        line = _MARKER.sub("", first_line(text), count=1)
        parts = line.split(",")
        found = parts if len(parts) <= MOST_PARTS else [line]
    texts = different(map(_trimmed, found))[:k]
    form: Form = "empty" if not texts else "unmarked" if not marks else "single" if len(texts) == 1 else "ok"
    return Candidates(texts, form)


def parse_answer(text: str) -> str:
    """A short answer: the first line that says something; "" for none."""
    return _trimmed(first_line(text))


def parse_conclusion(text: str) -> str | None:
    """What follows the last "the answer is" in a chain of thought; None without one."""
    found = [*_CONCLUSION.finditer(text)]
    return parse_answer(text[found[-1].end() :]) or None if found else None


def parse_validity(text: str) -> bool | None:
    """Whether a summary was said to support its prediction; None where neither true (yes) nor false (no) is said.

    "Not true" is false.
    """
    found = _TRUTH.search(first_line(text))
    return None if found is None else (found[2].lower() in ("true", "yes")) == (found[1] is None)


def parse_ranking(text: str) -> Literal[1, 2] | None:
    """The passage that was called the better one; None where none is named, or both are."""
    line = first_line(text)
    alone = _NUMBER.fullmatch(line)
    named = {alone[1]} if alone else set(_PASSAGE.findall(line))
    if named and not alone:
        named |= set(_SLOT.findall(line))  # "Passage 1 and 2"
    if named == {"1"}:
        return 1
    return 2 if named == {"2"} else None


def parse_order(text: str, count: int) -> list[int] | None:
    """The places of passages, the best first, from their numbers in the first line; None where no number is told.

    As RankGPT reads them (arXiv 2304.09542): the first mention of a number counts, numbers that no
    passage has are passed over, and passages that are not named follow in their order.

    Args:
        text: such as "2 > 3 > 1" or "[2] > [1]".
        count: of the passages.
    """
    named = [int(number) - 1 for number in re.findall(r"\d+", first_line(text))]
    known = dict.fromkeys(place for place in named if 0 <= place < count)
    return [*known, *(place for place in range(count) if place not in known)] if known else None


def parse_summary(text: str) -> str:
    """A summary without its end mark."""
    return text.partition(END)[0].strip()


def different(texts: Iterable[str]) -> list[str]:
    """Answers that say something and are not the same once normalised; the first of equals."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(normalise_answer(text), text)
    return [text for key, text in first.items() if key not in NOTHING]


def first_line(text: str) -> str:
    """The first line that is not blank, "" for none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _ascending(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The marks (a), (b), ... that follow one another; none without (a)."""
    marks: list[re.Match[str]] = []
    for mark in pattern.finditer(text):
        if mark[1].lower() == chr(ord("a") + len(marks)):
            marks.append(mark)
    return marks


def _in_any_order(text: str) -> list[re.Match[str]]:
    """The first (a), the first (b), ... wherever they stand, as far as no letter is missing."""
    first: dict[str, re.Match[str]] = {}
    for mark in _MARKER.finditer(text):
        first.setdefault(mark[1].lower(), mark)
    letters = [chr(ord("a") + place) for place in range(len(first))]
    return [first[letter] for letter in takewhile(first.__contains__, letters)]


def _trimmed(text: str) -> str:
    return first_line(text).strip(QUOTES).rstrip(".,; \t").strip(QUOTES)
