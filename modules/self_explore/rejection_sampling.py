"""Rejection sampling: which solutions a model learns from again, and which are paired (arXiv 2404.10346, section 3.2).

The first half of Self-Explore, without a model: right solutions of a question are kept where they differ, and each is
paired with a wrong one. What becomes of the pairs is in modules/self_explore/pits.py, sampling in
modules/self_explore/sampler.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from text.errors import UserError
from text.reasoning.dissimilar import Norm, farthest, one_per_key, shortest_dissimilar, unlike_before
from text.reasoning.equations import holds, marks
from text.reasoning.reasoning_records import SampleRecord, Solution
from text.reasoning.steps import ANSWER

S = TypeVar("S", bound=Solution)


@dataclass(frozen=True)
class Mining:
    """How solutions are selected among samples.

    The defaults are the rules for GSM8K; those for MATH are ``dedup: edit`` and ``rule: shortest_dissimilar``.

    Args:
        dedup: ``equations``: one solution for each list of calculator marks; ``edit``: none that is nearly another.
        max_right: right solutions of a question.
        max_wrong: wrong solutions of a question that may be paired, with ``edit``.
        check_equations: a right solution whose calculator marks do not all hold is left out, with ``equations``.
        min_distance: share of its length in which a solution must differ from all that were kept, with ``edit``.
        norm: what that length is: the mean of both, or what the official code computes, x + y // 2.
        rule: a right solution is paired with the wrong one that is ``farthest`` from it, or with the
            ``shortest_dissimilar`` one.
        require_answer: a wrong solution must have a final answer; without, loops and broken ones are the farthest.
            False in the official code for GSM8K.
        include_gold: the given solution is a right one too.
        min_success: questions of which a smaller share of samples is right make no pairs.
        max_pairs: of a question.
        seed: of the order in which ``edit`` looks at solutions.
    """

    dedup: Literal["equations", "edit"] = "equations"
    max_right: int = 8
    max_wrong: int = 24
    check_equations: bool = True
    min_distance: float = 0.2
    norm: Norm = "mean"
    rule: Literal["farthest", "shortest_dissimilar"] = "farthest"
    require_answer: bool = True
    include_gold: bool = False
    min_success: float = 0.0
    max_pairs: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if min(self.max_right, self.max_wrong) < 1 or (self.max_pairs is not None and self.max_pairs < 0):
            raise UserError("mining: max_right and max_wrong must be 1 or more, max_pairs 0 or more")
        if not 0 <= self.min_success <= 1 or self.min_distance < 0:
            raise UserError("mining: min_success must lie in [0, 1], and min_distance be 0 or more")


def mine(record: SampleRecord, mining: Mining) -> tuple[list[Solution], list[tuple[Solution, Solution]]]:
    """What the samples of a question give: right solutions to train on again, and pairs of a right and a wrong one."""
    given = [Solution(text=record.rationale, correct=True)] if mining.include_gold and record.rationale else []
    right = select_rft([*given, *record.samples], mining)
    if record.success < mining.min_success:
        return right, []
    return right, select_pairs(right, select_wrong(record.samples, mining), mining)


def select_rft(samples: Iterable[S], mining: Mining) -> list[S]:
    """The right solutions of a question that a model is trained on again, in order of appearance.

    Args:
        samples: of one question. With ``equations``, one that the limit of tokens ended is left out, for nobody shall
            learn to end in the middle; ``edit`` cuts off what comes after the answer.
        mining: the rules.
    """
    right = [sample for sample in samples if sample.correct]
    if mining.dedup == "edit":
        return _spread(right, mining.max_right, mining)
    right = _distinct(sample for sample in right if sample.finished)
    if mining.check_equations:
        right = [sample for sample in right if all(map(holds, marks(sample.text)))]
    keys = ["|".join(marks(sample.text)).replace(" ", "") for sample in right]
    return [right[place] for place in one_per_key(keys, [sample.text for sample in right])][: mining.max_right]


def select_wrong(samples: Iterable[S], mining: Mining) -> list[S]:
    """The wrong solutions of a question that may be paired; see `select_rft`."""
    wrong = [s for s in samples if not s.correct and s.text.strip() and (s.answer or not mining.require_answer)]
    return _spread(wrong, mining.max_wrong, mining) if mining.dedup == "edit" else _distinct(wrong)


def select_pairs(right: Sequence[S], wrong: Sequence[S], mining: Mining) -> list[tuple[S, S]]:
    """Right solutions with the wrong one that each is paired with; a wrong one is used once.

    Args:
        right: from `select_rft`; the first ones come first.
        wrong: from `select_wrong`.
        mining: the rules.
    """
    pick = farthest if mining.rule == "farthest" else shortest_dissimilar
    left, pairs = list(wrong), []
    for chosen in right[: mining.max_pairs]:
        if left:
            pairs.append((chosen, left.pop(pick(chosen.text, [rejected.text for rejected in left]))))
    return pairs


def _distinct(samples: Iterable[S]) -> list[S]:
    first: dict[str, S] = {}
    for sample in samples:
        first.setdefault(sample.text.strip(), sample)
    return list(first.values())


def _spread(samples: Iterable[S], most: int, mining: Mining) -> list[S]:
    ended = _distinct(sample.up_to_answer() for sample in samples if ANSWER in sample.text)
    Random(mining.seed).shuffle(ended)
    kept = unlike_before([sample.text for sample in ended], most, mining.min_distance, mining.norm)
    return [ended[place] for place in kept]
