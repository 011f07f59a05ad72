"""Facts that can only be looked up, as tasks to train on and as questions with passages (arXiv 2404.13081, in small).

A fact says what a name holds; who holds what is drawn anew for every context, so that nothing can be learnt by heart.
What a passage says is one short sentence, and every word is common enough to become one token. A model that answers
at once has to find the right sentence among all; a verdict on a summary compares two sentences.
"""

from __future__ import annotations

from random import Random
from typing import Any

from worlds.world import World

FIRST, SECOND = "ba do fi gu ha ke lo mi nu pe", "kol ram sit ven zar"
NAMES = tuple(first + second for first in FIRST.split() for second in SECOND.split())
THINGS = (
    "amber apple arrow barley basket beetle bronze candle carpet cherry copper cotton dagger eagle feather flint"
    " ginger goblet hammer honey ivory jasper kettle ladder lemon linen mirror needle onion pebble pepper quill ribbon"
    " saddle silver spoon thistle velvet walnut whistle"
)
VALUES = tuple(THINGS.split())


class LookedUp(World):
    """Tasks in `train` and `val` (`text.qa.qa_records.TaskRecord`), questions in `test` (`QAQuestion`).

    Args:
        contexts: of the training set, each with tasks of its own.
        facts: the most passages of a training context; the fewest are 2.
        test_facts: passages of a question. More of them than in training make direct answers worse, while verdicts
            still see one or two sentences.
        questions: of the test, each with passages of its own.
        answers: of a training context: questions to answer.
        summaries: of a training context: sentences that support a prediction.
        validity: of a training context: verdicts on a sentence, half of them True.
        ranking: of a training context: pairs of sentences, with a verdict for either of their names. The two differ in
            the question alone, so that nothing else can tell what is right.
        held_out: contexts of `val`.
        names: different ones.
        values: different ones.
        seed: everything follows from it.
    """

    def __init__(
        self,
        contexts: int = 1500,
        facts: int = 6,
        test_facts: int = 12,
        questions: int = 300,
        answers: int = 4,
        summaries: int = 2,
        validity: int = 3,
        ranking: int = 3,
        held_out: int = 50,
        names: int = 50,
        values: int = 40,
        seed: int = 0,
    ):
        self.contexts, self.facts, self.test_facts, self.questions = contexts, facts, test_facts, questions
        self.answers, self.summaries, self.validity, self.ranking = answers, summaries, validity, ranking
        self.held_out, self.seed = held_out, seed
        self.names, self.values = NAMES[:names], VALUES[:values]

    def records(self, split: str) -> list[dict]:
        """The tasks or questions of a split."""
        if not 2 <= self.facts <= (most := min(len(self.names), len(self.values))) or not 2 <= self.test_facts <= most:
            raise ValueError(f"'facts' and 'test_facts' must lie between 2 and {most}")
        rng = Random(f"{self.seed} {split}")
        if split == "test":
            return [self._question(number, rng) for number in range(self.questions)]
        counts = {"train": self.contexts, "val": self.held_out}
        if split not in counts:
            raise ValueError(f"no split '{split}': there are train, val and test")
        return [task for number in range(counts[split]) for task in self._tasks(f"{split}-{number}", rng)]

    def _question(self, number: int, rng: Random) -> dict[str, Any]:
        facts = self._drawn(self.test_facts, rng)
        name, value = facts[place := rng.randrange(len(facts))]
        passages = _passages(facts)
        return {
            "id": f"test-{number}",
            "question": _question(name),
            "answers": [value],
            "contexts": passages,
            "gold_ids": [passages[place]["id"]],
        }

    def _tasks(self, group: str, rng: Random) -> list[dict[str, Any]]:
        facts = self._drawn(rng.randint(2, self.facts), rng)
        seen = {"contexts": _passages(facts)}
        made: list[dict[str, Any]] = []
        for name, value in (rng.choice(facts) for _ in range(self.answers)):
            made.append({"task": "answer", "question": _question(name), "target": value, **seen})
        for _ in range(self.summaries):
            (name, value), (other, wrong) = rng.sample(facts, 2)
            about = rng.choice([(name, value), (other, wrong)])
            candidates = rng.sample([value, wrong], 2)
            of = {"question": _question(name), "candidates": candidates, "prediction": about[1]}
            made.append({"task": "summary", "target": _sentence(*about), **of, **seen})
        made += [self._verdict(facts, number, rng) for number in range(self.validity)]
        made += [verdict for _ in range(self.ranking) for verdict in self._comparisons(facts, rng)]
        return [{"id": f"{group}-{number}", "group_id": group, **task} for number, task in enumerate(made)]

    def _drawn(self, count: int, rng: Random) -> list[tuple[str, str]]:
        return list(zip(rng.sample(self.names, count), rng.sample(self.values, count), strict=True))

    @staticmethod
    def _verdict(facts: list[tuple[str, str]], number: int, rng: Random) -> dict[str, Any]:
        (name, value), (other, wrong) = rng.sample(facts, 2)
        right = rng.random() < 0.5
        # A false one supports another name's value, or names a value that the sentence does not hold.
        false = [(wrong, _sentence(other, wrong)), (wrong, _sentence(name, value))]
        prediction, sentence = (value, _sentence(name, value)) if right else false[rng.random() < 0.3]
        of = {"question": _question(name), "prediction": prediction, "summaries": [sentence]}
        return {"task": "validity", "target": str(right), **of}

    @staticmethod
    def _comparisons(facts: list[tuple[str, str]], rng: Random) -> list[dict[str, Any]]:
        pair = rng.sample(facts, 2)
        of = {"task": "ranking", "summaries": [_sentence(*fact) for fact in pair]}
        return [
            {"target": f"Passage {place}", "question": _question(name), **of} for place, (name, _) in enumerate(pair, 1)
        ]


def _passages(facts: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"id": f"{name}-{value}", "title": "", "text": _sentence(name, value)} for name, value in facts]


def _sentence(name: str, value: str) -> str:
    return f"{name} holds {value}."


def _question(name: str) -> str:
    return f"what {name} holds"
