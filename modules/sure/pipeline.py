"""How questions are answered by summarised retrieval, in plain values: the settings of arXiv 2404.13081, and ours.

This file knows names and numbers. What they mean is done in modules/sure/course.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modules.sure.selection import PARTIAL, Selection
from text.errors import UserError


@dataclass(frozen=True)
class Lengths:
    """Most tokens of what is written.

    Args:
        answer: an answer.
        reasoning: a chain of thought.
        candidates: all candidates together.
        summary: a summary.
        validity: a verdict on one.
        ranking: a verdict on two.
        order: an order of passages.
    """

    answer: int = 16
    reasoning: int = 256
    candidates: int = 48
    summary: int = 256
    validity: int = 4
    ranking: int = 6
    order: int = 24

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if (least := min(vars(self).values())) < 1:
            raise UserError(f"lengths: {least} tokens; each must be 1 or more")


@dataclass(frozen=True)
class Listwise:
    """How the model itself puts passages in order: some of them at a time, from the last on, the best move up.

    Args:
        window: passages that are ordered together; 5 in the code of arXiv 2404.13081.
        step: by how many places the next window begins earlier; 3 there.
    """

    window: int = 5
    step: int = 3

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if not 1 <= self.step < self.window:
            raise UserError(f"listwise: 'step' is {self.step}; it must lie between 1 and 'window' {self.window} less 1")


@dataclass(frozen=True)
class Pipeline:
    """How questions are answered.

    Args:
        k: candidates of a question; 2 in the paper.
        candidates: ``prompt`` asks for them, as in the paper; ``sampled`` takes the answer from passages and then those
            that are drawn most often; ``likeliest`` takes of those that are drawn the likeliest ones.
        pool: answers that are drawn of a question for the latter two.
        summary: ``generated`` by the model, as in the paper; ``extractive`` takes a sentence of the passages.
        verdicts: ``parsed`` from what the model writes, as in the paper; or the ``likelihood`` of the possible words.
        selection: what decides; see modules.sure.selection.choose. ``soft`` needs likelihoods.
        partial: see modules.sure.selection.preference.
        reasoning: also answer by a chain of thought, to compare with.
        listwise: also answer from the passage that the model itself puts first; null does not.
        lengths: most tokens of what is written.
    """

    k: int = 2
    candidates: Literal["prompt", "sampled", "likeliest"] = "prompt"
    pool: int = 8
    summary: Literal["generated", "extractive"] = "generated"
    verdicts: Literal["parsed", "likelihood"] = "parsed"
    selection: Selection = "official"
    partial: float = PARTIAL
    reasoning: bool = False
    listwise: Listwise | None = None
    lengths: Lengths = Lengths()

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if not 2 <= self.k <= 26:
            raise UserError(f"SuRe: 'k' is {self.k}; it must lie between 2 and 26")
        if self.pool < 1 or not 0.5 <= self.partial <= 1:
            raise UserError("SuRe: 'pool' must be 1 or more, and 'partial' lie in [0.5, 1]")
        if self.selection == "soft" and self.verdicts != "likelihood":
            raise UserError("SuRe: 'selection: soft' adds log-odds: set 'verdicts: likelihood'")
