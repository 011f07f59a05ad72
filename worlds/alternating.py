"""A made-up task with a quality that a program knows: two symbols in turn (for arXiv 2402.11253).

A prompt names two symbols. The best answers say them in turn, eight of them; each symbol that is one of the two and not
the one before it counts, each that is another costs. Answers of the data are far from that, and their comparisons are
wrong now and then: who learns from the pairs alone sees few good answers, who judges can find better ones. Every word
is a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import Literal

from worlds.world import Asked, World

SYMBOLS = tuple(f"s{number}" for number in range(12))
ASK = "Q"
LONGEST = 8  # symbols of an answer
SHORTEST = 4  # of one in the data
LEAST_SKILL = 0.2  # of one in the data: the chance that a symbol is one of the two
SPLITS = ("train", "val", "test")


def quality(prompt: str, answer: str) -> int:
    """Symbols that are one of the two and not the one before, less those that are neither; 0 at least, 8 at most.

    Of an answer of more than eight symbols the first eight count.
    """
    wanted, said = prompt.split()[1:], answer.split()[:LONGEST]
    right = sum(word in wanted and (not place or word != said[place - 1]) for place, word in enumerate(said))
    return max(0, right - sum(word not in wanted for word in said))


def score(request: Asked, response: str) -> float:
    """The quality, for a `ProgrammaticJudge`."""
    return float(quality(request.instruction, response))


class Alternating(World):
    """Prompts, and pairs of answers.

    Splits: `train`; `val` and `test`, whose pairs have no wrong labels. The prompts of `test` (kind ``prompts``) are
    those that training never sees; pairs of all splits are of the other ones.

    Args:
        pairs: pairs to train on.
        flips: share of the training pairs whose label is wrong.
        held_out: prompts that only ``prompts`` of `test` has.
        judged: pairs of `val` and of `test`.
        kind: ``pairs``, or ``prompts`` alone.
        repeats: how often `test` has each of its prompts.
        skill: the most that an answer of the data has: the chance that a symbol is one of the two, from 0.2 up. Near 1
            answers differ by whether they repeat themselves, so that a judge has to learn it.
        seed: everything follows from it.
    """

    def __init__(
        self,
        pairs: int = 3000,
        flips: float = 0.1,
        held_out: int = 12,
        judged: int = 500,
        kind: Literal["pairs", "prompts"] = "pairs",
        repeats: int = 1,
        skill: float = 0.8,
        seed: int = 0,
    ):
        self.pairs, self.flips, self.held_out, self.judged = pairs, flips, held_out, judged
        self.kind, self.repeats, self.skill, self.seed = kind, repeats, skill, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `val` or `test`."""
        if split not in SPLITS:
            raise ValueError(f"there are the splits train, val and test, not '{split}'")
        prompts = [f"{ASK} {one} {other}" for one, other in permutations(SYMBOLS, 2)]
        if not LEAST_SKILL <= self.skill <= 1:
            raise ValueError(f"skill is {self.skill}; it is from {LEAST_SKILL} to 1")
        if min(self.pairs, self.judged) < 1 or not 0 < self.held_out < len(prompts) or not 0 <= self.flips <= 1:
            raise ValueError(f"pairs and judged are 1 or more, held_out below {len(prompts)}, and flips from 0 to 1")
        Random(f"{self.seed} prompts").shuffle(prompts)
        if self.kind == "prompts":
            held_out = split == "test"
            chosen = prompts[: self.held_out] if held_out else prompts[self.held_out :]
            times = self.repeats if held_out else 1
            asked = [(prompt, time) for time in range(times) for prompt in chosen]
            return [{"id": f"{prompt.replace(' ', '-')}-{time}", "prompt": prompt} for prompt, time in asked]
        random = Random(f"{self.seed} {split}")
        count, flips = (self.pairs, self.flips) if split == "train" else (self.judged, 0.0)
        made = [_pair(random, random.choice(prompts[self.held_out :]), flips, self.skill) for _ in range(count)]
        return [{"id": f"{split}-{number}"} | pair for number, pair in enumerate(made)]


def _pair(random: Random, prompt: str, flips: float, skill: float) -> dict:
    """Two answers of different quality; the better one is chosen, but for flips."""
    while True:
        one, other = (_answer(random, prompt.split()[1:], skill) for _ in range(2))
        lead = quality(prompt, one) - quality(prompt, other)
        if lead:
            better, worse = (one, other) if (lead > 0) == (random.random() >= flips) else (other, one)
            return {"prompt": prompt, "chosen": better, "rejected": worse}


def _answer(random: Random, wanted: Sequence[str], most: float) -> str:
    """An answer of the data: of some skill, which is drawn for it."""
    skill = random.uniform(LEAST_SKILL, most)
    length = random.randint(SHORTEST, LONGEST)
    return " ".join(random.choice(wanted if random.random() < skill else SYMBOLS) for _ in range(length))
