"""A small country and its people: text to pretrain on, and strangers to hear of later (arXiv 2406.11813 in miniature).

Background people have six attributes each and are written about again and again, so that a name comes to mean its
facts: a stream of random facts would leave nothing to acquire. This file writes the texts; the words are in
worlds/country.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate, product
from random import Random
from typing import NamedTuple

from worlds.country import ATTRIBUTES, GIVEN, HEADS, SPOKEN_OF, STRANGE_HEADS, STRANGE_TAILS, SYLLABLES, TAILS
from worlds.world import World


class Person(NamedTuple):
    """A name and a value for each attribute."""

    name: str
    values: dict[str, str]


class Sentence(NamedTuple):
    """A sentence without its full stop: everything but the last word, and the last word."""

    begins: str
    value: str


class Biographies(World):
    """People of a small country, and strangers who are to be injected.

    Splits: `train` and `val` are documents about the same people, {"text": ...}; `knowledge` are facts about strangers,
    with memorization probes (a sentence of the passage), semantic ones (a wording that no passage has) and
    compositional ones (the kind of a value, which background documents tell of others).

    Args:
        people: how many are written about again and again; the popularity of the n-th goes with 1 / n.
        documents: how many are written to train on; a tenth of that to validate.
        travellers: the share of documents about somebody who is never heard of again. From them a model learns that it
            knows nothing about an unknown name; else its guesses about strangers would drift by themselves.
        facts: how many strangers there are.
        paraphrases: how many other wordings each of their passages has.
        seed: everything follows from it.
    """

    def __init__(
        self,
        people: int = 400,
        documents: int = 10_000,
        travellers: float = 0.2,
        facts: int = 40,
        paraphrases: int = 9,
        seed: int = 0,
    ):
        self.people, self.documents, self.travellers = people, documents, travellers
        self.facts, self.paraphrases, self.seed = facts, paraphrases, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `val` or `knowledge`."""
        if min(self.people, self.documents, self.facts) < 1 or self.paraphrases < 0 or not 0 <= self.travellers <= 1:
            raise ValueError(
                "people, documents and facts must be at least 1, paraphrases at least 0, travellers between 0 and 1"
            )
        match split:
            case "train":
                return [_text(document) for document in self._train]
            case "val":
                return [_text(document) for document in self._write("val", self.documents // 10)]
            case "knowledge":
                names = _names(
                    Random(f"{self.seed} strangers"), self.facts, STRANGE_HEADS, STRANGE_HEADS, STRANGE_TAILS
                )
                return [self._stranger(number, name) for number, name in enumerate(names)]
        raise ValueError(f"there are the splits train, val and knowledge, not '{split}'")

    @cached_property
    def _population(self) -> list[Person]:
        rng = Random(f"{self.seed} people")
        names = _names(rng, self.people, GIVEN, HEADS, TAILS)
        return [
            Person(name, {key: rng.choice(list(said.kind_of)) for key, said in ATTRIBUTES.items()}) for name in names
        ]

    @cached_property
    def _train(self) -> list[list[Sentence]]:
        return self._write("train", self.documents)

    @cached_property
    def _heard(self) -> set[str]:
        """Every value and kind that some document to train on tells of somebody."""
        return {value for document in self._train for _, value in document}

    def _write(self, split: str, n: int) -> list[list[Sentence]]:
        """Two to four sentences about one person, and every other time what follows from an attribute."""
        rng = Random(f"{self.seed} {split}")
        fame = list(accumulate(1 / rank for rank in range(1, self.people + 1)))
        documents = []
        for person in rng.choices(self._population, cum_weights=fame, k=n):
            if rng.random() < self.travellers:
                person = _person(rng, " ".join("".join(rng.choices(SYLLABLES.split(), k=3)).title() for _ in range(2)))
            keys = rng.sample(list(ATTRIBUTES), rng.randint(2, 4))
            document = [_sentence(person, key, rng.randrange(len(ATTRIBUTES[key].templates))) for key in keys]
            if rng.random() < 0.5:
                document.append(_derived(person, rng.choice(list(ATTRIBUTES))))
            documents.append(document)
        return documents

    def _stranger(self, number: int, name: str) -> dict:
        rng = Random(f"{self.seed} stranger {number}")
        heard = {key: [value for value in said.kind_of if value in self._heard] for key, said in ATTRIBUTES.items()}
        person = Person(name, {key: rng.choice(values) for key, values in heard.items() if values})
        wording = {key: rng.randrange(SPOKEN_OF) for key in person.values}
        passage = [_sentence(person, key, wording[key]) for key in rng.sample(list(wording), len(wording))]
        asked = [_sentence(person, key, rng.randrange(SPOKEN_OF, len(ATTRIBUTES[key].templates))) for key in wording]
        derived = [sentence for key in wording if (sentence := _derived(person, key)).value in self._heard]
        probes = {"mem": [_sentence(person, key, wording[key]) for key in wording], "gen": asked, "hard_gen": derived}
        record = {
            "id": number,
            "train_context": _text(passage)["text"],
            "paraphrases": self._reword(rng, person, wording),
        }
        for kind, sentences in probes.items():
            record[f"{kind}_input"] = [sentence.begins for sentence in sentences]
            record[f"{kind}_target"] = [sentence.value for sentence in sentences]
        return record

    def _reword(self, rng: Random, person: Person, wording: dict[str, int]) -> list[str]:
        """The same facts in another order, and each in another wording than the passage's."""
        texts = []
        for _ in range(self.paraphrases):
            order = rng.sample(list(wording), len(wording))
            others = {key: rng.choice([t for t in range(SPOKEN_OF) if t != wording[key]]) for key in wording}
            texts.append(_text([_sentence(person, key, others[key]) for key in order])["text"])
        return texts


def _person(rng: Random, name: str) -> Person:
    return Person(name, {key: rng.choice(list(said.kind_of)) for key, said in ATTRIBUTES.items()})


def _sentence(person: Person, key: str, template: int) -> Sentence:
    return Sentence(ATTRIBUTES[key].templates[template].format(person.name), person.values[key])


def _derived(person: Person, key: str) -> Sentence:
    said = ATTRIBUTES[key]
    return Sentence(said.derived.format(person.name), said.kind_of[person.values[key]])


def _text(sentences: Iterable[Sentence]) -> dict:
    return {"text": " ".join(f"{sentence.begins} {sentence.value}." for sentence in sentences)}


def _names(rng: Random, n: int, givens: str, heads: str, tails: str) -> list[str]:
    """Different names; a family name comes back only when all have been given away.

    Raises:
        ValueError: for more than there are.
    """
    first, families = givens.split(), ["".join(parts) for parts in product(heads.split(), tails.split())]
    if n > (most := len(first) * len(families)):
        raise ValueError(f"there are {most} names, not {n}")
    rng.shuffle(families)
    shift = rng.randrange(len(first))
    turns = [divmod(number, len(families)) for number in range(n)]
    return [f"{first[(family + again + shift) % len(first)]} {families[family]}" for again, family in turns]
