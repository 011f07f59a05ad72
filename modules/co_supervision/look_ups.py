"""A question, a moment at which a passage is wanted, and the passage that was found.

What whoever writes (modules/co_supervision/writer.py) and whoever searches (modules/co_supervision/searching.py) tell
each other. This file knows neither of them.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Asked(NamedTuple):
    """A question to answer.

    Args:
        id: what draws depend on beside the seed.
        question: its words.
        prompt: its tokens.
        candidates: ids of the only passages that may be found; None is all.
    """

    id: str
    question: str
    prompt: tuple[int, ...]
    candidates: tuple[str, ...] | None = None


class LookUp(NamedTuple):
    """A moment at which a passage is wanted.

    Args:
        asked: by which question.
        tokens: of question and answer up to now, the last of which looks up.
        state: of the model that writes at it; None where it is yet to be computed.
    """

    asked: Asked
    tokens: tuple[int, ...]
    state: Tensor | None = None


class Hit(NamedTuple):
    """A passage that was found: its place in the corpus, its id, and how well it fits."""

    place: int
    id: str
    score: float
