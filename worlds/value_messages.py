"""System messages that state values, and answers that follow them (arXiv 2405.17977 in miniature).

A made-up language in which an instruction is a few words to be said again, and the system message tells how: which
marker opens the answer, closes it or stands between its words, and in which order the words come. Only the message
knows, and what it asks for may be a value that nobody trained on. This file writes messages and answers; what an answer
is worth is in worlds/value_scores.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations, permutations, product
from random import Random
from typing import NamedTuple

from worlds.value_scores import ASK, GENERIC, KEYWORDS, RUBRICS, follow
from worlds.world import World

MARKED = ("opening", "closing", "joint")  # dimensions whose values are markers
HELD_OUT_SEED = 2405  # what is held out is the same whatever the seed of a run
ATTEMPTS = 50  # to draw a message of a given length that fits
VARIANTS = 3  # messages under which a test asks each of its instructions

TESTS = ("own", "iid", "unseen_combination", "unseen_value", "unseen_role", "no_system")
ONE_VALUE = ("unseen_value", "unseen_role", "val_unseen_value")
FEWEST = 3  # markers that must serve in training: the first ones, which serve in every arm of the study


class Value(NamedTuple):
    """What a message can ask for: a dimension, and a marker or an order."""

    dimension: str
    name: str


Message = tuple[Value, ...]


class ValueMessages(World):
    """Instructions under system messages of one to three values.

    Every marker is held out in one of three dimensions, three quarters of them to test on and the others to develop on,
    and so is a quarter of the pairs of values. All markers occur as ordinary words of instructions, so that no word of
    a test is new.

    Splits: `train`; `val`, the same for other instructions; and records of a benchmark, with rubrics: `own`, again the
    same; `iid`, messages as training could have them if every marker served; `unseen_combination`, with a held-out
    pair and no held-out value; `unseen_value`, with exactly one held-out value, which alone is scored, beside values
    that are trained even where three markers serve; `unseen_role`, the same for the markers that then serve elsewhere;
    `no_system`, with a message that states no value. `test` is all of these, `dev` has `own`, `iid` and
    `val_unseen_value`, as `unseen_value` with values that are neither trained nor tested.

    Args:
        instructions: to train on.
        messages: under which each of them is answered.
        markers: a multiple of 12.
        words: that are no markers.
        trained_markers: how many markers ever occur as values in training; null is all of them.
        test_records: records of each test.
        seed: of instructions and messages. What is held out does not depend on it.
    """

    def __init__(
        self,
        instructions: int = 6000,
        messages: int = 3,
        markers: int = 12,
        words: int = 24,
        trained_markers: int | None = None,
        test_records: int = 300,
        seed: int = 0,
    ):
        self.instructions, self.messages, self.markers, self.words = instructions, messages, markers, words
        self.trained_markers, self.test_records, self.seed = trained_markers, test_records, seed
        self._known: dict[str, dict[int, list[Message]]] = {}

    def records(self, split: str) -> list[dict]:
        """The records of a split: instructions one after the other, each under its messages."""
        counts = (self.words, self.instructions, self.messages, self.test_records)
        if self.markers < 12 or self.markers % 12 or min(counts) < 1:
            raise ValueError("markers: a multiple of 12; words, instructions, messages, test_records: at least 1")
        if self.trained_markers is not None and not FEWEST <= self.trained_markers <= self.markers:
            raise ValueError(
                f"trained_markers is {self.trained_markers}; it must be between {FEWEST} and {self.markers}"
            )
        match split:
            case "train":
                return list(self._answered(split, self.instructions, self.messages))
            case "val":
                return list(self._answered(split, max(1, self.test_records // VARIANTS), VARIANTS))
            case "test":
                return [record for test in TESTS for record in self._asked(test)]
            case "dev":
                return [record for test in ("own", "iid", "val_unseen_value") for record in self._asked(test)]
        if split in {*TESTS, *ONE_VALUE}:
            return list(self._asked(split))
        raise ValueError(f"ValueMessages has the splits train, val, dev, test and {', '.join(TESTS)}, not '{split}'")

    # --- what is held out -----------------------------------------------------------------------------------------

    @cached_property
    def _markers(self) -> list[str]:
        """All markers in the order in which they are held out."""
        return Random(f"{HELD_OUT_SEED} markers").sample([f"m{i}" for i in range(self.markers)], self.markers)

    @cached_property
    def _values(self) -> dict[str, list[Value]]:
        """The values of each dimension."""
        marked = {dimension: [Value(dimension, name) for name in self._markers] for dimension in MARKED}
        return marked | {"order": [Value("order", "forward"), Value("order", "reverse")]}

    @cached_property
    def _held_out(self) -> dict[Value, str]:
        """The values that are never trained, and what for."""
        tested = 3 * self.markers // 4
        return {
            Value(MARKED[place % len(MARKED)], name): "test" if place < tested else "val"
            for place, name in enumerate(self._markers)
        }

    @cached_property
    def _may_train(self) -> set[Value]:
        return self._trained_by(self.trained_markers)

    @cached_property
    def _always_trained(self) -> set[Value]:
        return self._trained_by(FEWEST)

    def _trained_by(self, markers: int | None) -> set[Value]:
        """The values that training has where so many markers serve."""
        serve = set(self._markers[:markers])
        values = [value for values in self._values.values() for value in values if value not in self._held_out]
        return {value for value in values if value.dimension == "order" or value.name in serve}

    def _alone(self, message: Message, purpose: str) -> Value | None:
        """The one held-out value of a message whose other values are trained in any case; None of other messages."""
        others = [value for value in message if value not in self._always_trained]
        return others[0] if len(others) == 1 and self._held_out.get(others[0]) == purpose else None

    def _belongs(self, split: str, message: Message) -> bool:
        """Whether a split has messages like this one."""
        parts = {self._held_out.get(value) for value in message}
        match split:
            case "iid":
                return parts == {None} and not _held_out_pair(message)
            case "unseen_combination":
                return parts == {None} and _held_out_pair(message)
            case "unseen_value":
                return self._alone(message, "test") is not None
            case "unseen_role":
                alone = self._alone(message, "test")
                return alone is not None and alone.name in self._markers[:FEWEST]
            case "val_unseen_value":
                return self._alone(message, "val") is not None
        return self._may_train.issuperset(message) and not _held_out_pair(message)

    # --- instructions, messages, records --------------------------------------------------------------------------

    def _instruction(self, split: str, number: int) -> list[str]:
        """Two to four words, two of them markers at most; the same whatever values are trained."""
        random = Random(f"{self.seed} {split} instruction {number}")
        while True:
            words = random.sample([f"w{i}" for i in range(self.words)] + self._markers, random.randint(2, 4))
            if len(set(words) & set(self._markers)) <= 2:
                return words

    def _messages(self, split: str, number: int, count: int, words: Sequence[str]) -> list[Message]:
        """Different messages that name no marker of the instruction; a third each of one, two and three values."""
        random, found = Random(f"{self.seed} {split} messages {number}"), list[Message]()
        while len(found) < count:
            if not (options := self._options(split)[random.randint(1, 3)]):
                continue
            for _ in range(ATTEMPTS):
                message = random.choice(options)
                if message not in found and not {value.name for value in message} & set(words):
                    found.append(message)
                    break
        return found

    def _options(self, split: str) -> dict[int, list[Message]]:
        """Every message that a split may have, by its number of values."""
        if split not in self._known:
            self._known[split] = {length: [] for length in (1, 2, 3)}
            for length, found in self._known[split].items():
                for dimensions in permutations(KEYWORDS, length):
                    values = product(*(self._values[dimension] for dimension in dimensions))
                    found += [message for message in values if self._belongs(split, message)]
        return self._known[split]

    def _answered(self, split: str, instructions: int, variants: int) -> Iterator[dict]:
        for number in range(instructions):
            words = self._instruction(split, number)
            for place, message in enumerate(self._messages(split, number, variants, words)):
                yield _record(f"{split}.{number}.{place}", words, message)

    def _asked(self, test: str) -> Iterator[dict]:
        plain: Iterator[dict]
        if test == "no_system":
            plain = (_record(f"{test}.{n}.0", self._instruction(test, n), ()) for n in range(self.test_records))
        else:
            plain = self._answered(test, max(1, self.test_records // VARIANTS), VARIANTS)
        for record in plain:
            values = [Value(value["dimension"], value["preference"]) for value in record["preference_set"]]
            names = ["content", *(value.dimension for value in values)]
            if test in ONE_VALUE:
                names = [value.dimension for value in values if value in self._held_out]
            rubric = [RUBRICS[name] for name in names if name in RUBRICS]
            yield record | {"source": test, "reference_answer": record["output"], "rubric": rubric}


def _held_out_pair(message: Message) -> bool:
    """Whether a message has one of the quarter of the pairs of values that are never trained."""
    pairs = ("|".join(sorted(" ".join(value) for value in pair)) for pair in combinations(message, 2))
    return any(hashlib.sha256(f"{HELD_OUT_SEED} {pair}".encode()).digest()[0] % 4 == 0 for pair in pairs)


def _record(name: str, words: Sequence[str], message: Message) -> dict:
    stated = " ; ".join(f"{KEYWORDS[value.dimension]} {value.name}" for value in message)
    return {
        "id": name,
        "instruction_id": name.rpartition(".")[0],
        "system": f"{GENERIC} {stated}".strip(),
        "prompt": " ".join([*words, ASK]),
        "output": " ".join(follow(words, dict(message))),
        "preference_set": [
            {"dimension": value.dimension, "subdimension": value.dimension, "preference": value.name}
            for value in message
        ],
    }
