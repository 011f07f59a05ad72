"""When two short answers are the same: the normaliser of SQuAD (arXiv 1606.05250, its evaluation script, version 1.1).

It knows strings. It does not know what they answer, nor what a right one is worth (metrics/qa/answers.py).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII alone, as in the script
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an and the, its white space squeezed."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def contains_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether a text has any of the answers in it, as whole words, both normalised.

    Args:
        text: of a passage, or a prediction.
        answers: any one counts; one of which nothing is left is never found.
    """
    within = f" {normalise_answer(text)} "
    return any(f" {answer} " in within for answer in map(normalise_answer, answers) if answer)
