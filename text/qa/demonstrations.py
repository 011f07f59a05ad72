"""Examples of all tasks of summarised retrieval, for models that cannot be told what to do but can be shown.

It knows strings. Which of them a prompt shows is written in text/qa/prompts.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demonstration:
    """An example of all tasks, for models that have to be shown their form.

    Args:
        question: that is asked.
        answer: the right one.
        other: a wrong one.
        passage: that supports the right answer.
        other_passage: that does not.
    """

    question: str
    answer: str
    other: str
    passage: str
    other_passage: str


DEMONSTRATIONS = (
    Demonstration(
        "what is the capital city of Japan",
        "Tokyo",
        "Kyoto",
        "Tokyo has been the capital of Japan since 1868, when the emperor moved there.",
        "Kyoto was the seat of the imperial court of Japan for more than a thousand years.",
    ),
    Demonstration(
        "who wrote the novel Pride and Prejudice",
        "Jane Austen",
        "Charlotte Bronte",
        "Pride and Prejudice is a novel by Jane Austen that was published in 1813.",
        "Charlotte Bronte is best known for her novel Jane Eyre, published in 1847.",
    ),
    Demonstration(
        "in which year did the first world war end",
        "1918",
        "1914",
        "The first world war ended with the armistice of November 1918.",
        "The first world war began in the summer of 1914.",
    ),
)
