"""Chains of sums modulo 100, worked out line by line (arXiv 2404.10346 in miniature).

A question such as ``47+8-9*3+6=?`` is evaluated from left to right, one line for each operation, and ends in the answer
``A44``. As every line can be checked, it is known where a wrong solution first goes wrong, which nobody knows of real
ones: how well a model finds its own first pit can be measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Literal, NamedTuple

from text.reasoning.answers import NumberChecker
from worlds.world import World

MODULUS = 100
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
CARELESS_FROM, CARELESS_BY = 6, 10  # the habit: products with an operand from 6 on come out ten too high
SIZES = {"val": 300, "test": 1000}

_LINE = re.compile(r"(\d\d)([-+*])(\d)=(\d\d)")


class Chain(NamedTuple):
    """A number, and what is done to it."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def question(self) -> str:
        """As it is asked."""
        return f"{self.start:02d}{''.join(f'{sign}{operand}' for sign, operand in self.operations)}=?"

    @classmethod
    def of(cls, question: str) -> Chain:
        """The chain of a question.

        Raises:
            ValueError: for what is none.
        """
        if not re.fullmatch(r"\d\d([-+*]\d)+=\?", question):
            raise ValueError(f"'{question}' is no question such as 47+8-9*3+6=?")
        return cls(
            int(question[:2]), tuple((sign, int(operand)) for sign, operand in re.findall(r"([-+*])(\d)", question))
        )


class ChainChecker(NumberChecker):
    """Answers such as ``A44``: a class of its own, so that ``--data.checker NumberChecker`` takes its place whole."""

    def __init__(self) -> None:
        super().__init__(["A"])


class ChainArithmetic(World):
    """Questions, and solutions line by line.

    Splits: `train`, questions with solutions; `pool`, the same questions and more without, which a model may try to
    solve by itself; `val`, 300, and `test`, 1000 questions with solutions. No question is in two of the last three or
    twice in one; `train` and `pool` share theirs. `pairs` are the questions to train on with a right solution and one
    with a mistake in a random line, which goes on from there.

    Args:
        train: questions with solutions.
        answer_only: further questions of the pool, of which only the answer is known.
        steps: operations in a question; a list of two numbers: from so many to so many.
        op_weights: of plus, minus and times.
        habits: the share of products with an operand of 6 or more that come out ten too high in the solutions to train
            on, which then go on with the wrong value. A model thus learns two ways; answers stay right.
        kind: what `train`, `val` and `test` hold: ``questions``; ``pairs`` as in the split of that name; ``granular``
            pairs of the right way to go on and the wrong line, after the lines before it.
        routes: sums of products such as ``3*4+5*6=?`` in their place, which may be worked out in any order, without
            the modulus and with calculator marks: a question has several right solutions. Without habits.
        seed: everything follows from it.
    """

    def __init__(
        self,
        train: int = 4000,
        answer_only: int = 0,
        steps: int | tuple[int, int] = 4,
        op_weights: tuple[float, float, float] = (3, 3, 2),
        habits: float = 0.0,
        routes: bool = False,
        kind: Literal["questions", "pairs", "granular"] = "questions",
        seed: int = 0,
    ):
        self.train, self.answer_only, self.steps, self.op_weights = train, answer_only, steps, op_weights
        self.habits, self.routes, self.kind, self.seed = habits, routes, kind, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `pool`, `val` or `test`: id, question, gold and, where there is one, rationale."""
        self._check()
        if self.kind != "questions" and split in ("train", "val", "test"):
            return self._pairs(split, self.kind == "granular")
        match split:
            case "pairs":
                return self._pairs("train", granular=False)
            case "train":
                return self._solved("train", self._questions["pool"][: self.train], self.habits)
            case "pool":
                rest = enumerate(self._questions["pool"][self.train :])
                given = self._solved("train", self._questions["pool"][: self.train], self.habits)
                return given + [self._asked(f"more-{number}", question) for number, question in rest]
            case "val" | "test":
                return self._solved(split, self._questions[split], 0)
        raise ValueError(f"there are the splits train, pool, pairs, val and test, not '{split}'")

    def first_error(self, question: str, solution: str) -> int | None:
        """See `first_error`; None also for sums of products, which can be worked out in many ways."""
        return None if self.routes else first_error(question, solution)

    def is_sound(self, step: str) -> bool:
        """See `is_sound`."""
        return is_sound(step)

    def _check(self) -> None:
        low, high = self._range
        if min(self.train, low) < 1 or self.answer_only < 0 or high < low or not 0 <= self.habits <= 1:
            raise ValueError(
                "train and steps must be at least 1, answer_only at least 0, habits between 0 and 1, and steps a number"
                " or two in order"
            )
        if len(self.op_weights) != 3 or min(self.op_weights) < 0 or not sum(self.op_weights):
            raise ValueError("op_weights are three numbers, of + - *, not below 0")
        if self.routes and (self.habits or low < 2 or self.kind != "questions"):
            raise ValueError("routes go without habits and pairs, and need steps of at least 2")

    @property
    def _range(self) -> tuple[int, int]:
        low, high = (self.steps, self.steps) if isinstance(self.steps, int) else self.steps
        return low, high

    @cached_property
    def _questions(self) -> dict[str, list[str]]:
        """Different ones in each split, the test's first: what is trained on keeps off it."""
        taken: set[str] = set()
        return {
            split: self._draw(Random(f"{self.seed} {split}"), count, taken)
            for split, count in {
                "test": SIZES["test"],
                "val": SIZES["val"],
                "pool": self.train + self.answer_only,
            }.items()
        }

    def _draw(self, rng: Random, count: int, taken: set[str]) -> list[str]:
        found: list[str] = []
        for _ in range(100 * count):
            if len(found) == count:
                return found
            steps = rng.randint(*self._range)
            question = _products(rng, steps) if self.routes else self._chain(rng, steps).question
            if question not in taken:
                taken.add(question)
                found.append(question)
        raise ValueError(f"there are not so many different questions of {self.steps} steps")

    def _chain(self, rng: Random, steps: int) -> Chain:
        signs = rng.choices(list(OPERATIONS), self.op_weights, k=steps)
        return Chain(rng.randrange(MODULUS), tuple((sign, rng.randint(2, 9)) for sign in signs))

    def _solved(self, split: str, questions: Sequence[str], habits: float) -> list[dict]:
        rng = Random(f"{self.seed} {split} solutions")
        return [
            self._asked(f"{split}-{number}", question)
            | {"rationale": _any_route(question, rng) if self.routes else solution(question, habits, rng)}
            for number, question in enumerate(questions)
        ]

    def _pairs(self, split: str, granular: bool) -> list[dict]:
        questions = self._questions["pool"][: self.train] if split == "train" else self._questions[split]
        rng = Random(f"{self.seed} {split} mistakes")
        return [_pair(f"{split}-{number}", question, rng, granular) for number, question in enumerate(questions)]

    def _asked(self, id: str, question: str) -> dict:
        right = _any_route(question, Random(0)) if self.routes else solution(question)
        return {"id": id, "question": question, "gold": right.rpartition("A")[2]}


def solution(question: str, habits: float = 0.0, rng: Random | None = None) -> str:
    """A question worked out.

    Args:
        question: such as ``47+8-9*3+6=?``.
        habits: the chance that a product with an operand of 6 or more comes out ten too high.
        rng: decides whether it does.
    """
    value, operations = Chain.of(question)
    lines = []
    for sign, operand in operations:
        result = OPERATIONS[sign](value, operand)
        if sign == "*" and operand >= CARELESS_FROM and rng is not None and rng.random() < habits:
            result += CARELESS_BY
        lines.append(f"{value:02d}{sign}{operand}={result % MODULUS:02d}\n")
        value = result % MODULUS
    return f"{''.join(lines)}A{value:02d}"


def _pair(id: str, question: str, rng: Random, granular: bool) -> dict:
    right = solution(question).split("\n")
    pit = rng.randrange(len(right) - 1)
    sum_, _, result = right[pit].partition("=")
    value = (int(result) + rng.randrange(1, MODULUS)) % MODULUS
    rest = "".join(f"{sign}{operand}" for sign, operand in Chain.of(question).operations[pit + 1 :])
    wrong = [*right[:pit], f"{sum_}={value:02d}", *(solution(f"{value:02d}{rest}=?").split("\n") if rest else [])]
    wrong += [] if rest else [f"A{value:02d}"]
    pair = {"id": id, "question_id": id, "group_id": id, "gold": right[-1][1:], "num_steps": len(wrong)}
    if not granular:
        return pair | {"prompt": f"{question}\n", "chosen": "\n".join(right), "rejected": "\n".join(wrong)}
    before = "".join(f"{line}\n" for line in (question, *right[:pit]))
    found = {"kind": "granular", "pit": pit + 1}
    return pair | found | {"prompt": before, "chosen": "\n".join(right[pit:]), "rejected": wrong[pit]}


def first_error(question: str, rationale: str) -> int | None:
    """The line, counted from 1, in which a solution first departs from the right one; None if it never does."""
    right, given = solution(question).split("\n"), rationale.strip("\n").split("\n")
    for number, line in enumerate(right, 1):
        if number > len(given) or given[number - 1].strip() != line:
            return number
    return None if len(given) == len(right) else len(right) + 1


def is_sound(line: str) -> bool:
    """Whether a line is a sum that is worked out right, whether or not it was the one to do."""
    if not (found := _LINE.fullmatch(line.strip())):
        return False
    value, sign, operand, result = found.groups()
    return OPERATIONS[sign](int(value), int(operand)) % MODULUS == int(result)


def _products(rng: Random, count: int) -> str:
    return "+".join(f"{rng.randint(2, 9)}*{rng.randint(2, 9)}" for _ in range(count)) + "=?"


def _any_route(question: str, rng: Random) -> str:
    """A sum of products worked out: the products in any order, then their sum in that order."""
    products = [(int(a), int(b)) for a, b in re.findall(r"(\d)\*(\d)", question)]
    rng.shuffle(products)
    lines = [f"<<{a}*{b}={a * b}>>" for a, b in products]
    total = products[0][0] * products[0][1]
    for a, b in products[1:]:
        lines.append(f"<<{total}+{a * b}={total + a * b}>>")
        total += a * b
    return "\n".join([*lines, f"A{total}"])
