"""Summaries that are sentences of the passages: nothing in them is made up.

It knows strings. It does not know candidates from answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from text.facts.passages import SENTENCE_END
from text.qa.answers import contains_answer, normalise_answer
from text.qa.qa_records import Shown


class Support(NamedTuple):
    """A sentence, and whether it holds what it is to support."""

    sentence: str
    held: bool


def supporting_sentence(passages: Sequence[Shown], prediction: str, question: str) -> Support:
    """The first sentence that holds the prediction; without one, that with most different words of the question.

    Args:
        passages: best first; at least one.
        prediction: an answer.
        question: that it answers.
    """
    found = [sentence for passage in passages for sentence in sentences(passage.text or passage.title)]
    if held := next((sentence for sentence in found if contains_answer(sentence, [prediction])), None):
        return Support(held, True)
    asked = set(normalise_answer(question).split())
    return Support(max(found, key=lambda sentence: len(asked & set(normalise_answer(sentence).split()))), False)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, stripped; all of it where none ends."""
    begin = 0
    for end in [*(mark.end() for mark in SENTENCE_END.finditer(text)), len(text)]:
        if sentence := text[begin:end].strip():
            yield sentence
        begin = end
