"""Facts that passages state and questions ask for in other words (arXiv 2403.09024 in miniature).

A relation has one word in passages and another in questions. Only documents to pretrain on show that both mean the
same; some relations are asked for nowhere else before the test. So a model that searches for those must use what its
space of tokens knew before it was tuned. This file knows words, and no models.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product
from random import Random
from typing import Literal, NamedTuple

from worlds.world import World

SYLLABLES = [a + b for a, b in product("bdfgklmnprst", "aeiou")]
FORMS = 2  # in which a passage states a fact


class Fact(NamedTuple):
    """What is true of an entity."""

    id: str
    entity: str
    relation: int
    value: str


class ParaphrasedFacts(World):
    """Entities with facts, each in a passage of its own.

    Splits: `corpus`, all passages; `train` and `val`, answers that cite, about entities and relations to train on;
    `test`, questions about other entities, with relations that training asked for (domain ``seen``) and with others
    (``unseen``). Of kind ``documents``, `train` and `val` are to pretrain on: answers without look-ups that state facts
    and then ask for them, about entities that come up nowhere else.

    Args:
        kind: what there is to train on: answers, or documents.
        entities: to train on.
        tested: others, of which the test asks.
        relations: that are asked for in training.
        unseen: that are asked for in the test alone.
        values: different values.
        pairs: answers to train on; a fifth of that to validate.
        documents: to pretrain on; a twentieth of that to validate.
        restated: facts of a document.
        plain: share of answers without a look-up, whose question says the value itself.
        world: decides the language and its facts, which runs with other seeds may share; null is ``seed``.
        seed: of all else.
    """

    def __init__(
        self,
        kind: Literal["answers", "documents"] = "answers",
        entities: int = 240,
        tested: int = 30,
        relations: int = 8,
        unseen: int = 4,
        values: int = 40,
        pairs: int = 1600,
        documents: int = 4000,
        restated: int = 4,
        plain: float = 0.1,
        world: int | None = None,
        seed: int = 0,
    ):
        self.kind, self.entities, self.tested = kind, entities, tested
        self.relations, self.unseen, self.values = relations, unseen, values
        self.pairs, self.documents, self.restated, self.plain = pairs, documents, restated, plain
        self.world, self.seed = seed if world is None else world, seed

    def records(self, split: str) -> list[dict]:
        """The records of `corpus`, `train`, `val` or `test`."""
        names, most = self.entities + self.tested, len(SYLLABLES) ** 2 // 2
        counts = (self.entities, self.tested, self.relations, self.values, self.pairs, self.documents, self.restated)
        if min(counts) < 1 or self.unseen < 0 or names > most or not 0 <= self.plain <= 1:
            raise ValueError(f"counts must be at least 1, entities at most {most} in all, plain between 0 and 1")
        match split:
            case "corpus":
                return [self._passage(fact) for fact in self._facts]
            case "train" | "val" if self.kind == "documents":
                return self._documents(split)
            case "train":
                return self._answers(split, self.pairs)
            case "val":
                return self._answers(split, max(1, self.pairs // 5))
            case "test":
                return [self._question(fact) for fact in self._facts if self._is_tested(fact)]
        raise ValueError(f"there are the splits corpus, train, val and test, not '{split}'")

    # --- the language ---------------------------------------------------------------------------------------------

    def _random(self, *purpose: object) -> Random:
        return Random(f"{self.world} {' '.join(map(str, purpose))}")

    @cached_property
    def _words(self) -> list[str]:
        made = [a + b + c for a, b, c in product(SYLLABLES, SYLLABLES, "kmx")]
        return self._random("words").sample(made, 2 * (self.relations + self.unseen) + self.values)

    def _asked(self, relation: int) -> str:
        """What questions call a relation."""
        return self._words[2 * relation]

    def _written(self, relation: int) -> str:
        """What passages call it."""
        return self._words[2 * relation + 1]

    @cached_property
    def _values(self) -> list[str]:
        return self._words[-self.values :]

    @cached_property
    def _names(self) -> list[str]:
        """Of entities: those to train on, those to test, and the rest, of which documents tell."""
        return self._random("names").sample([f"{a} {b}" for a, b in product(SYLLABLES, SYLLABLES)], len(SYLLABLES) ** 2)

    @cached_property
    def _facts(self) -> list[Fact]:
        random = self._random("facts")
        every = range(self.relations + self.unseen)
        return [
            Fact(f"p{number}.{relation}", name, relation, random.choice(self._values))
            for number, name in enumerate(self._names[: self.entities + self.tested])
            for relation in every
        ]

    def _is_tested(self, fact: Fact) -> bool:
        return int(fact.id[1:].partition(".")[0]) >= self.entities

    def _stated(self, fact: Fact, form: int) -> str:
        relation = self._written(fact.relation)
        forms = f"{fact.entity} {relation} {fact.value} .", f"the {relation} of {fact.entity} is {fact.value} ."
        return forms[form]

    # --- records --------------------------------------------------------------------------------------------------

    def _passage(self, fact: Fact) -> dict:
        return {"id": fact.id, "title": "", "text": self._stated(fact, self._random("form", fact.id).randrange(FORMS))}

    def _ask(self, fact: Fact) -> str:
        return f"ask {self._asked(fact.relation)} {fact.entity} ?"

    def _answers(self, split: str, count: int) -> list[dict]:
        """Answers about facts to train on; those of `val` are about others of them."""
        known = [fact for fact in self._facts if not self._is_tested(fact) and fact.relation < self.relations]
        self._random("split").shuffle(known)
        held_out = max(1, len(known) // 6)
        own, random = known[held_out:] if split == "train" else known[:held_out], Random(f"{self.seed} {split}")
        records = []
        for number in range(count):
            if number % len(own) == 0:
                random.shuffle(own)
            fact = own[number % len(own)]
            record = {"id": f"{split}-{number}", "group_id": fact.entity, "domain": "seen"}
            if random.random() < self.plain:
                asked = f"say {fact.value} ?"
                records.append(record | {"question": asked, "segments": [{"text": fact.value}]})
            else:
                segments = [{"retrieve": fact.id, "text": fact.value}]
                records.append(record | {"question": self._ask(fact), "segments": segments})
        return records

    def _question(self, fact: Fact) -> dict:
        seen = fact.relation < self.relations
        known = {"answers": [fact.value], "gold_ids": [fact.id], "domain": "seen" if seen else "unseen"}
        return {"id": f"q{fact.id}", "question": self._ask(fact)} | known

    def _documents(self, split: str) -> list[dict]:
        """Each tells some facts one after the other, in a passage's words and in a question's, in either order."""
        random, names = Random(f"{self.seed} documents {split}"), self._names[self.entities + self.tested :]
        written = []
        for number in range(self.documents if split == "train" else max(1, self.documents // 20)):
            told = []
            for value in random.sample(self._values, min(self.restated, self.values)):
                fact = Fact("", random.choice(names), random.randrange(self.relations + self.unseen), value)
                both = [self._stated(fact, random.randrange(FORMS)), f"{self._ask(fact)} {fact.value} ."]
                told += random.sample(both, 2)
            first, *rest = told
            written.append({"id": f"{split}-{number}", "question": first, "segments": [{"text": " ".join(rest)}]})
        return written
