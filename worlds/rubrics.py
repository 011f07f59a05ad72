"""A benchmark in miniature whose instances have rubrics of their own (arXiv 2406.05761), with answers and right scores.

An answer is a row of symbols. Every instance demands two of them and forbids a third; only its own rubric says which.
The rubric of its task names what the task demands most, and the coarse one nothing. So the same answers can be judged
under each of them, and what a rubric is worth shows in how well a judge's scores agree with the right ones. This tests
the value of the information and the pipeline around it, not the understanding of language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from worlds.world import World

Granularity = Literal["instance", "domain", "coarse"]
GRANULARITIES: tuple[Granularity, ...] = ("instance", "domain", "coarse")

SYMBOLS = [f"s{n}" for n in range(12)]
CAPABILITIES, TASKS = 3, 4  # of each capability
POOL = 6  # symbols that the instances of a task are made of
DEMAND = (4, 4, 3, 3, 1, 1)  # how often each symbol of a pool is demanded, compared with the others
SHORTEST, LONGEST = 6, 10
NOISE = ((-1, 0.15), (0, 0.70), (1, 0.15))  # of a human's score, and how probable
SPLITS = ("train", "val", "test", "responses", "scores", "results")
DESCRIPTIONS = ("none", "one spoilt", "one", "both spoilt", "both")


class Habits(NamedTuple):
    """How a response model answers: how probable a demanded symbol and a forbidden one are."""

    demanded: float
    forbidden: float


MODELS = {"good": Habits(0.9, 0.05), "middle": Habits(0.6, 0.2), "weak": Habits(0.3, 0.5)}
WEAK_SPOT = ("middle", 2)  # this model answers as the weak one on this capability


class Wanted(NamedTuple):
    """What an instance asks for."""

    demanded: tuple[str, str]
    forbidden: str


class RubricWorld(World):
    """Instances of three capabilities with four tasks each, in the schema of BiGGen Bench.

    Splits: `train` and `val`, answers with feedback and scores to train an evaluator on, a third of them under each
    kind of rubric; `test`, the instances; `responses`, the answers of ``model`` to them; `scores`, a human's scores of
    these; `results`, the answers of all three models with the right score and a human's, as the bench publishes its
    results. What test instances demand and forbid together is never trained.

    Args:
        granularity: whose rubric instances bring: their own, their task's, or one for all.
        instances: of each task, in the bench.
        trained: answers to train on.
        held_out: answers of `val`.
        model: good, middle or weak.
        as_text: `train` and `val` are questions and what a judge should say to them (``prompt``, ``output``), in place
            of their parts.
        seed: of pools, instances and answers.
    """

    def __init__(
        self,
        granularity: Granularity = "instance",
        instances: int = 40,
        trained: int = 4000,
        held_out: int = 300,
        model: str = "middle",
        as_text: bool = False,
        seed: int = 0,
    ):
        self.granularity, self.instances, self.trained, self.held_out = granularity, instances, trained, held_out
        self.model, self.as_text, self.seed = model, as_text, seed

    def records(self, split: str) -> list[dict]:
        """The records of a split."""
        if self.granularity not in GRANULARITIES:
            raise ValueError(f"granularity is '{self.granularity}'; it must be one of {', '.join(GRANULARITIES)}")
        if self.model not in MODELS:
            raise ValueError(f"model is '{self.model}'; it must be one of {', '.join(MODELS)}")
        if min(self.instances, self.trained, self.held_out) < 1:
            raise ValueError("instances, trained and held_out must be 1 or more")
        match split:
            case "train" | "val":
                judged = self._judged(split, self.trained if split == "train" else self.held_out)
                return [_taught(record) for record in judged] if self.as_text else list(judged)
            case "test":
                return [self._instance(*place) for place in self._places()]
            case "responses":
                return [{"id": row["id"], "response": row["response"]} for row in self._results(self.model)]
            case "scores":
                return [
                    {"id": row["id"], "score": row["human_score"], "eval_model_name": "human"}
                    for row in self._results(self.model)
                ]
            case "results":
                return [row for model in MODELS for row in self._results(model)]
        raise ValueError(f"RubricWorld has the splits {', '.join(SPLITS)}, not '{split}'")

    # --- tasks and instances --------------------------------------------------------------------------------------

    def _pool(self, capability: int, task: int) -> list[str]:
        """The symbols of a task, the most demanded first."""
        return Random(f"{self.seed} pool {capability} {task}").sample(SYMBOLS, POOL)

    def _wanted(self, random: Random, pool: list[str], tested: bool) -> Wanted:
        """What an instance asks for, of the combinations that are tested or of those that are trained."""
        while True:
            first, second = (random.choices(pool, DEMAND)[0] for _ in range(2))
            forbidden = random.choice(pool)
            wanted = Wanted((min(first, second), max(first, second)), forbidden)
            if len({first, second, forbidden}) == 3 and _is_tested(wanted) == tested:
                return wanted

    def _places(self) -> Iterator[tuple[int, int, int]]:
        for capability in range(CAPABILITIES):
            for task in range(TASKS):
                for index in range(self.instances):
                    yield capability, task, index

    def _asked(self, capability: int, task: int, index: int) -> Wanted:
        pool = self._pool(capability, task)
        return self._wanted(Random(f"{self.seed} instance {capability} {task} {index}"), pool, tested=True)

    def _instance(self, capability: int, task: int, index: int) -> dict:
        wanted, pool = self._asked(capability, task, index), self._pool(capability, task)
        names = (f"c{capability}", f"t{task}")
        return {
            "id": "_".join((*names, str(index))),
            "capability": names[0],
            "task": names[1],
            "instance_idx": index,
            "system_prompt": "",
            "input": f"{names[0]} {names[1]}",
            "reference_answer": " ".join(wanted.demanded),
            "score_rubric": _rubric(self.granularity, wanted, pool),
        }

    # --- answers and scores ---------------------------------------------------------------------------------------

    def _results(self, model: str) -> Iterator[dict]:
        for capability, task, index in self._places():
            wanted = self._asked(capability, task, index)
            habits = MODELS["weak"] if (model, capability) == WEAK_SPOT else MODELS[model]
            random = Random(f"{self.seed} answer {model} {capability} {task} {index}")
            said = _answer(random, wanted, habits)
            right = right_score(said, wanted)
            noise = random.choices([step for step, _ in NOISE], [weight for _, weight in NOISE])[0]
            yield self._instance(capability, task, index) | {
                "model_name": model,
                "response": " ".join(said),
                "human_score": min(5, max(1, right + noise)),
                "gold_score": right,
            }

    def _judged(self, split: str, count: int) -> Iterator[dict]:
        for number in range(count):
            random = Random(f"{self.seed} {split} {number}")
            capability, task = random.randrange(CAPABILITIES), random.randrange(TASKS)
            pool = self._pool(capability, task)
            wanted = self._wanted(random, pool, tested=False)
            said = _answer(random, wanted, Habits(*random.choice([(0.9, 0.2), (0.5, 0.5), (0.15, 0.5)])))
            found = [symbol for symbol in (*wanted.demanded, wanted.forbidden) if symbol in said]
            yield {
                "id": f"{split}_{number}",
                "instruction": f"c{capability} t{task}",
                "response": " ".join(said),
                "rubric": _rubric(GRANULARITIES[number % len(GRANULARITIES)], wanted, pool),
                "reference_answer": " ".join(wanted.demanded),
                "feedback": " ".join(["found", *found]),
                "score": right_score(said, wanted),
            }


def _taught(record: dict) -> dict:
    """A question, the rubric last (what is looked for is known where the verdict is written), and what to say to it."""
    asked = f"{record['instruction']} | {record['response']} | {record['rubric']['criteria']} :"
    return {"id": record["id"], "prompt": asked, "output": f"{record['feedback']} [RESULT] {record['score']}"}


def right_score(said: list[str], wanted: Wanted) -> int:
    """1, and 2 for each demanded symbol that is there, less 1 if the forbidden one is; never below 1."""
    return max(1, 1 + 2 * sum(symbol in said for symbol in wanted.demanded) - (wanted.forbidden in said))


class Asked(Protocol):
    """What a judge is told (lm.judging.requests.JudgeRequest)."""

    @property
    def rubric(self) -> Any:
        """With ``criteria``."""
        ...


def score_by_rubric(request: Asked, response: str) -> float | None:
    """The right score of an answer by what its rubric says; None where the rubric does not say it."""
    demanded, _, forbidden = request.rubric.criteria.removeprefix("want ").partition(" avoid ")
    if len(named := demanded.split()) != 2 or not forbidden:
        return None
    return float(right_score(response.split(), Wanted((named[0], named[1]), forbidden)))


def _is_tested(wanted: Wanted) -> bool:
    """A quarter of the combinations, the same whatever the seed."""
    named = " ".join((*wanted.demanded, wanted.forbidden))
    return hashlib.sha256(named.encode()).digest()[0] % 4 == 0


def _answer(random: Random, wanted: Wanted, habits: Habits) -> list[str]:
    """Symbols in any order: each demanded one and the forbidden one once or not at all, others to fill the row."""
    said = [symbol for symbol in wanted.demanded if random.random() < habits.demanded]
    if random.random() < habits.forbidden:
        said.append(wanted.forbidden)
    others = [symbol for symbol in SYMBOLS if symbol not in (*wanted.demanded, wanted.forbidden)]
    said += random.choices(others, k=random.randint(SHORTEST, LONGEST) - len(said))
    random.shuffle(said)
    return said


def _rubric(granularity: Granularity, wanted: Wanted, pool: list[str]) -> dict:
    said = {
        "instance": f"want {' '.join(wanted.demanded)} avoid {wanted.forbidden}",
        "domain": f"want {' '.join(sorted(pool[:4]))}",
        "coarse": "good",
    }
    descriptions = {f"score{number}_description": text for number, text in enumerate(DESCRIPTIONS, 1)}
    return {"criteria": said[granularity], **descriptions}
