"""The best of N answers: sampled by one model, chosen by the rewards of another (arXiv 2405.17977, section 5).

The two need not share a tokenizer or a template: answers are handed over as text. Knows engines and raters; it does not
know which prompts are asked, nor where the answers go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lm.forests.batches import PromptBatch
from lm.generation.decoding import Decoding
from lm.generation.engine import Generates
from lm.judging.rater import Rater, Rewards


class Best(NamedTuple):
    """The answer that was kept.

    Args:
        text: without special tokens.
        finished: see `lm.generation.decoding.Sample`.
        draw: which of the samples it is.
        rewards: of all samples; None of an empty one.
    """

    text: str
    finished: bool
    draw: int
    rewards: Rewards

    @property
    def notes(self) -> dict[str, Any]:
        """What is written beside the answer."""
        return {"draw": self.draw, "reward": self.rewards[self.draw], "rewards": list(self.rewards)}


def best_of(rewards: Rewards) -> int:
    """Which has the highest reward, the first of equal ones; an empty answer only if all of them are."""
    return max(range(len(rewards)), key=lambda draw: -math.inf if (r := rewards[draw]) is None else r)


def best_of_n(
    engine: Generates, rater: Rater, batch: PromptBatch, n: int, decoding: Decoding, seeds: Sequence[int]
) -> list[Best]:
    """Of ``n`` samples of each prompt the one with the highest reward, in the order of the prompts."""
    samples = engine.generate(batch.prompts, n, decoding, seeds)
    groups = [samples[first : first + n] for first in range(0, len(samples), n)]
    kept = []
    for group, rewards in zip(groups, rater.rate(batch.records, [[s.text for s in g] for g in groups]), strict=True):
        draw = best_of(rewards)
        kept.append(Best(group[draw].text, group[draw].finished, draw, rewards))
    return kept


def judged(rewards: Sequence[Rewards]) -> list[list[float]]:
    """Rewards for statistics: an empty answer counts as the worst of its prompt; prompts without any are left out."""
    floors = [min((r for r in of_prompt if r is not None), default=None) for of_prompt in rewards]
    known = [(of_prompt, floor) for of_prompt, floor in zip(rewards, floors, strict=True) if floor is not None]
    return [[floor if r is None else r for r in of_prompt] for of_prompt, floor in known]
