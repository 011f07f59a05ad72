"""A house whose servant can be polite or rude: pairs from which a model learns to be polite (arXiv 2305.18290).

Both answers of a pair name the thing that was asked for, and are about as long: what tells them apart is the manner
alone. The vocabulary is tiny, so that a scratch model learns it within a minute.
"""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Literal

from worlds.world import Asked, World

REQUESTS = ("Bring me {}.", "Where is {}?", "May I have {}?", "Look for {}.")
KINDS = "red blue green black white old new small big round warm cold"
NAMES = "cup plate spoon lamp book coat hat key chair letter basket blanket candle mirror kettle umbrella"
ANSWERS = ("here is {}", "you will find {} on the table", "{} is by the door", "I saw {} upstairs")
OPENINGS = {
    True: ("Certainly", "Of course", "With pleasure", "Gladly", "Thank you for asking"),
    False: ("Not again", "Go away", "What a bother", "Ugh", "Who cares"),
}
CLOSINGS = {
    True: ("my friend", "and have a good day", "and do ask again", "dear guest"),
    False: ("you fool", "and leave me alone", "and never ask again", "lazy thing"),
}
SPLITS = ("train", "val", "test")
ENOUGH = 12  # words of an answer


def brevity(request: Asked, response: str) -> float:
    """1 if the thing is named, less a tenth for each word beyond twelve; for a `ProgrammaticJudge`."""
    thing = " ".join(request.instruction.rstrip(".?").split()[-3:])
    return (thing in response.lower()) - 0.1 * max(0, len(response.split()) - ENOUGH)


class Manners(World):
    """Requests and how they are answered.

    Splits: `train`, `val` and `test`, which ask for different things; the last two have a tenth of the records.

    Args:
        pairs: records to train on.
        kind: ``pairs`` of a polite, chosen and a rude, rejected answer; ``labelled`` answers, of which the polite ones
            are desirable; ``instructions`` with an answer; ``prompts`` alone.
        polite: share of polite answers among labelled ones and instructions.
        seed: everything follows from it.
    """

    def __init__(
        self,
        pairs: int = 2000,
        kind: Literal["pairs", "labelled", "instructions", "prompts"] = "pairs",
        polite: float = 0.5,
        seed: int = 0,
    ):
        self.pairs, self.kind, self.polite, self.seed = pairs, kind, polite, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `val` or `test`."""
        if split not in SPLITS:
            raise ValueError(f"there are the splits train, val and test, not '{split}'")
        if self.pairs < 10 or not 0 <= self.polite <= 1:
            raise ValueError("pairs must be at least 10, and polite between 0 and 1")
        rng = Random(f"{self.seed} {split} {self.kind}")
        things = self._things(split)
        count = self.pairs if split == "train" else self.pairs // 10
        return [self._record(rng, f"{split}-{number}", rng.choice(things)) for number in range(count)]

    def _things(self, split: str) -> list[str]:
        """Four fifths of all things to train on, a tenth each to validate and to test."""
        things = [f"the {kind} {name}" for kind, name in product(KINDS.split(), NAMES.split())]
        Random(f"{self.seed} things").shuffle(things)
        tenth = len(things) // 10
        parts = {"val": things[:tenth], "test": things[tenth : 2 * tenth], "train": things[2 * tenth :]}
        return parts[split]

    def _record(self, rng: Random, id: str, thing: str) -> dict:
        asked = {"id": id, "prompt": rng.choice(REQUESTS).format(thing)}
        match self.kind:
            case "pairs":
                return asked | {"chosen": _answer(rng, thing, True), "rejected": _answer(rng, thing, False)}
            case "labelled":
                polite = rng.random() < self.polite
                return asked | {"completion": _answer(rng, thing, polite), "label": polite}
            case "instructions":
                return asked | {"output": _answer(rng, thing, rng.random() < self.polite)}
            case "prompts":
                return asked
        raise ValueError(f"kind '{self.kind}': there are pairs, labelled, instructions and prompts")


def _answer(rng: Random, thing: str, polite: bool) -> str:
    """An answer in a manner, which shows at its beginning, at its end, or at both."""
    opening, closing = rng.choice(OPENINGS[polite]), rng.choice(CLOSINGS[polite])
    said = rng.choice(ANSWERS).format(thing)
    match rng.randrange(3):
        case 0:
            return f"{opening}, {said}."
        case 1:
            return f"{said[0].upper()}{said[1:]}, {closing}."
    return f"{opening}, {said}, {closing}."
