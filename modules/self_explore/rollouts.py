"""The base of the stages of Self-Explore that make data: rounds, and a checker that tells which answers are right.

What is sampled, and what becomes of it, is the subclasses' (modules/self_explore/sampler.py,
modules/self_explore/explorer.py).
"""

from __future__ import annotations

from modules.base.rounds_module import RoundsModule
from text.reasoning.answers import AnswerChecker


class Rollouts(RoundsModule):
    """Solutions of questions: see RoundsModule. What comes from the cache is judged anew."""

    @property
    def checker(self) -> AnswerChecker:
        """Of the data."""
        return self.trainer.datamodule.checker  # type: ignore[attr-defined]
