"""What a reader sees of an answer that cites: numbers before full stops, and sentences with what supports them.

Knows pieces of text and the names of passages. It does not know tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_END = re.compile(r"\s*[.!?]+\s*$")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Piece(NamedTuple):
    """A part of an answer.

    Args:
        text: its words.
        passage: id of the passage that it cites; None is free text.
    """

    text: str
    passage: str | None = None


def cited_text(pieces: Sequence[Piece]) -> str:
    """The answer with citations: ``[1]`` before the full stop, numbered in the order in which passages are first used.

    White space is squeezed; a citation without words leaves no mark.
    """
    numbers: dict[str, int] = {}
    parts = []
    for piece in pieces:
        text = piece.text.strip()
        if piece.passage is not None and text:
            mark = f"[{numbers.setdefault(piece.passage, len(numbers) + 1)}]"
            stop = _END.search(text)
            text = f"{text}{mark}" if stop is None else f"{text[: stop.start()]}{mark}{stop[0].strip()}"
        parts.append(text)
    return " ".join(" ".join(parts).split())


def said(pieces: Sequence[Piece]) -> str:
    """The words of an answer, without marks of citations: brackets in it are what the model wrote itself."""
    return " ".join(" ".join(piece.text for piece in pieces).split())


def raw_text(pieces: Sequence[Piece], retrieve: str, begin: str, end: str) -> str:
    """The answer with its control tokens, and without the words of the passages."""
    shown = (p.text if p.passage is None else f"{retrieve}{begin}{p.text}{end}" for p in pieces)
    return "".join(shown)


def sentences(text: str) -> list[str]:
    """The sentences of a text: it is cut behind full stops, question marks and exclamation marks.

    What has neither letter nor digit says nothing, such as the full stop behind a citation, and is no sentence.
    """
    return [part.strip() for part in _SENTENCE.split(text.strip()) if any(map(str.isalnum, part))]


class Unit(NamedTuple):
    """Sentences that stand before a citation, and the passage that is to support them.

    Args:
        sentences: free ones since the last citation, then those of the citation itself.
        passage: its id.
        cited: the words of the citation itself.
    """

    sentences: list[str]
    passage: str
    cited: str


def units(pieces: Sequence[Piece]) -> list[Unit]:
    """The citations of an answer; sentences that nothing cites belong to the next citation, if there is one."""
    found, waiting = [], list[str]()
    for piece in pieces:
        own = sentences(piece.text)
        if piece.passage is None:
            waiting += own
        elif own:
            found.append(Unit([*waiting, *own], piece.passage, piece.text.strip()))
            waiting = []
    return found
