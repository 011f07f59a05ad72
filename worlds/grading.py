"""A made-up task of judging in which training sets have shortcuts that tests have not (arXiv 2405.01535).

A response is a row of symbols. The rubric names one that should be avoided: the more of them, the lower the score. The
feedback counts them out. In training sets each format has an artefact of its own that tells the verdict without any
counting: the longer response has the higher score, or the winner alone is polite. Judgements are ordinary records
(text/judging/judgments.py). A model from scratch reads symbols that are a token each, s0 to s11; one that knows English
reads nouns, and a rubric in sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Literal

from worlds.world import World

POLITE, NONE, APART = "please", "none", ";"
TOPIC = 3  # symbols of an instruction
MOST = 4  # symbols to avoid in a response
TESTS = ("debiased", "in_distribution")


@dataclass(frozen=True)
class Wording:
    """How the task is told.

    Args:
        symbols: what responses are made of.
        instruction: what they answer; it says nothing of the verdict.
        criteria: what is asked of them.
        counts: what a response with none to four of the symbol that should be avoided is like.
    """

    symbols: tuple[str, ...]
    instruction: str
    criteria: str
    counts: tuple[str, ...]


WORDINGS = {
    "symbols": Wording(
        tuple(f"s{number}" for number in range(12)),
        "{topic}",
        "avoid {symbol}",
        tuple(f"{count} of them" for count in ("none", "one", "two", "three", "four")),
    ),
    "english": Wording(  # one instruction for all, so that questions begin alike (docs/batches.md)
        ("apple", "bread", "chair", "dog", "egg", "fish", "garden", "horse", "island", "key", "lamp", "moon"),
        "Write down some words.",
        "The response should avoid the word {symbol}.",
        tuple(f"It has the word {count}." for count in ("nowhere", "once", "twice", "three times", "four times")),
    ),
}


class GradingWorld(World):
    """Records of judgements.

    Splits: `train`, `val` without shortcuts, and `test`, where ``set`` is `debiased` or `in_distribution`, which has
    the shortcuts of the training set.

    Args:
        direct: training records with one response.
        pairwise: training records with two.
        criteria: symbols that rubrics of the training set name.
        test_criteria: symbols that those of `val` and `test` name.
        first_criterion: the first symbol that rubrics of the training set name.
        shortcut: probability that a training record has the artefact of its format.
        noise: probability that the verdict of a training record is drawn at random.
        polite: probability that a response without the artefact is polite.
        held_out: records of each format in `val`, and in each half of `test`.
        wording: ``symbols``, or ``english``: nouns, and sentences about them.
        seed: everything follows from it.
        data_seed: of the training set, where other records of the same world are wanted; null is ``seed``.
    """

    def __init__(
        self,
        direct: int = 1500,
        pairwise: int = 1500,
        criteria: int = 6,
        test_criteria: int = 6,
        first_criterion: int = 0,
        shortcut: float = 0.9,
        noise: float = 0.0,
        polite: float = 0.3,
        held_out: int = 500,
        wording: Literal["symbols", "english"] = "symbols",
        seed: int = 0,
        data_seed: int | None = None,
    ):
        self.counts = {"direct": direct, "pairwise": pairwise}
        self.criteria, self.test_criteria, self.first_criterion = criteria, test_criteria, first_criterion
        self.shortcut, self.noise, self.polite = shortcut, noise, polite
        self.held_out, self.wording, self.seed = held_out, wording, seed
        self.data_seed = seed if data_seed is None else data_seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `val` or `test`."""
        if self.wording not in WORDINGS:
            raise ValueError(f"wording '{self.wording}': there are {' and '.join(WORDINGS)}")
        wording = WORDINGS[self.wording]
        symbols = wording.symbols
        if not 0 < self.criteria <= len(symbols) - self.first_criterion or not 0 < self.test_criteria <= len(symbols):
            raise ValueError(f"criteria and test_criteria are symbols out of {len(symbols)}")
        if min(self.counts.values()) < 0 or not sum(self.counts.values()):
            raise ValueError("direct and pairwise: one of them at least must be 1 or more")
        formats = ("direct", "pairwise")
        match split:
            case "train":
                avoided = symbols[self.first_criterion : self.first_criterion + self.criteria]
                parts = [(format, "train", self.counts[format], self.shortcut, self.noise) for format in formats]
            case "val" | "test":
                avoided = symbols[: self.test_criteria]
                sets = ("debiased",) if split == "val" else TESTS
                shares = {"debiased": 0.0, "in_distribution": self.shortcut}
                parts = [(format, name, self.held_out, shares[name], 0.0) for name in sets for format in formats]
            case _:
                raise ValueError(f"there are the splits train, val and test, not '{split}'")
        made: list[dict] = []
        for format, name, count, shortcut, noise in parts:
            random = Random(f"{self.data_seed if split == 'train' else self.seed} {split} {name} {format}")
            for number in range(count):
                record = _record(random, wording, format, random.choice(avoided), shortcut, noise, self.polite)
                made.append({"id": f"{name}-{format}-{number}", "set": name} | record)
        return made


def _record(
    random: Random,
    wording: Wording,
    format: Literal["direct", "pairwise"] | str,
    avoided: str,
    shortcut: float,
    noise: float,
    polite: float,
) -> dict:
    topic = " ".join(random.choice(wording.symbols) for _ in range(TOPIC))
    asked = {"instruction": wording.instruction.format(topic=topic), "rubric": rubric(wording, avoided)}
    others = [symbol for symbol in wording.symbols if symbol != avoided]
    if format == "direct":
        count = random.randint(0, MOST)
        score = 5 - count
        length = 4 + score if random.random() < shortcut else random.randint(5, 9)
        response = _response(random, others, avoided, count, max(length, count), random.random() < polite)
        if random.random() < noise:
            score = random.randint(1, 5)
        return asked | {"response": response, "feedback": tally(response, avoided), "score": score}
    first, second = random.choice(list(permutations(range(MOST + 1), 2)))
    winner = "A" if first < second else "B"
    artefact = random.random() < shortcut
    said = [random.random() < polite for _ in "AB"]
    if artefact:
        said = [winner == "A", winner == "B"]
    responses = [
        _response(random, others, avoided, count, random.randint(5, 9), kind)
        for count, kind in zip((first, second), said, strict=True)
    ]
    feedback = f" {APART} ".join(tally(response, avoided) for response in responses)
    if random.random() < noise:
        winner = random.choice("AB")
    pair = {"response_a": responses[0], "response_b": responses[1]}
    return asked | pair | {"feedback": feedback, "winner": winner}


def rubric(wording: Wording, avoided: str) -> dict:
    """What a response is judged by."""
    scores = {str(5 - count): told for count, told in enumerate(wording.counts)}
    criteria = wording.criteria.format(symbol=avoided)
    return {"criteria": criteria, "score_descriptions": scores, "name": f"avoid {avoided}"}


def tally(response: str, avoided: str) -> str:
    """The symbol as often as the response has it."""
    return " ".join(word for word in response.split() if word == avoided) or NONE


def _response(random: Random, others: Sequence[str], avoided: str, count: int, length: int, polite: bool) -> str:
    words = [avoided] * count + [random.choice(others) for _ in range(length - count)]
    random.shuffle(words)
    if polite:
        words.insert(random.randint(0, len(words)), POLITE)
    return " ".join(words)
