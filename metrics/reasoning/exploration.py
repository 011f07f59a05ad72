"""How well first pits are found, where it is known what is wrong with a solution (arXiv 2404.10346, section 3).

Nobody knows that of real solutions; worlds do. This file does not know how pits are found
(modules/self_explore/pits.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from text.reasoning.reasoning_records import ExplorationRecord


@runtime_checkable
class KnowsErrors(Protocol):
    """A source of questions that can tell where a solution goes wrong."""

    def first_error(self, question: str, solution: str) -> int | None:
        """The step, counted from 1, in which a solution first goes wrong; None if it does not, or nobody can tell."""
        ...

    def is_sound(self, step: str) -> bool:
        """Whether a step is right in itself, whatever came before it."""
        ...


def pit_report(questions: Sequence[str], explorations: Sequence[ExplorationRecord], oracle: KnowsErrors) -> dict:
    """Pits against first errors.

    Args:
        questions: one for each exploration.
        explorations: of wrong solutions. Those without a pit, and those whose error nobody can tell, do not count.
        oracle: knows where solutions go wrong.

    Returns: `pit_accuracy`, the share of pits that are the first error; `pit_early` and `pit_late`, the shares that lie
        before it (bad luck: from right steps no completion was right) and after it (good luck: from a wrong step one
        was); `sound_after_pit`, the share of the steps between pit and answer that are right in themselves, which whole
        rejected solutions are blamed for. What there is nothing of is left out.
    """
    found = {"pit_accuracy": 0, "pit_early": 0, "pit_late": 0}
    known, sound = 0, []
    for question, exploration in zip(questions, explorations, strict=True):
        error = oracle.first_error(question, "".join(exploration.steps))
        if exploration.pit is None or error is None:
            continue
        known += 1
        found["pit_accuracy"] += exploration.pit == error
        found["pit_early"] += exploration.pit < error
        found["pit_late"] += exploration.pit > error
        sound += [oracle.is_sound(step) for step in exploration.steps[exploration.pit : -1]]
    shares = {name: count / known for name, count in found.items()} if known else {}
    return shares | ({"sound_after_pit": sum(sound) / len(sound)} if sound else {})
