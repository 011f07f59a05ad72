"""Searchers who say who they are: does training on instructions teach a retriever to read them? (arXiv 2402.14334).

A made-up language in which an instruction is the only sign of what a searcher wants, and shares no word with the
document that has it (as in InstructIR, whose passages were rewritten without the words of the scenario). One set of
documents and needs; only how a need is written in training differs between styles. Words mean nothing, so that a
retriever knows about them what training taught it.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product
from random import Random
from typing import Literal, NamedTuple

from worlds.world import World

Style = Literal["natural", "none", "task", "swapped", "user"]

TOPICS = 60
EVALUATED = 8  # facets of a topic that are asked for in the test
TRAINED = 12  # other facets of the topic, for training; with other topics all facets are trained
TYPES = 4
TEMPLATE_WORDS, FILLERS = 60, 40
SEEN_TEMPLATE_WORDS, FIRST_TEST_TEMPLATE_WORD = 45, 15  # of training; a third of a test template's words is in none


class Sides(NamedTuple):
    """How a facet or a document type is called by those who ask, and in documents."""

    asked: list[str]
    written: list[str]


class Document(NamedTuple):
    """A document, and what it is about."""

    id: str
    topic: int
    facet: int
    type: int
    text: str


class InstructedSearch(World):
    """Topics, facets (what a user needs) and documents that have one facet of one topic.

    Splits: `train` are pairs in a style; `corpus`, the documents of the test; `test`, queries of users, each with an
    instruction of a template that was never trained; `own`, the same needs written as in training, which tells
    whether a retriever learnt what it was taught.

    Styles of a need:

    * ``natural``: no instruction; words of topic, facet and, half the time, type, in any order among noise. Any word of
      the language may be noise, as any word turns up in a pretraining.
    * ``none``: the same, with noise of the words that the other styles' templates have.
    * ``task``: a description of the retrieval task, with words that have nothing to do with the document, and a
      query that names topic and facet.
    * ``swapped``: the instruction of some other user, and a query that names topic, facet and type.
    * ``user``: the instruction of the user, and a query that names the topic alone.

    Args:
        style: of the training pairs.
        rounds: how often every document is asked for, each time in other words; batches do not mix rounds.
        facets: how many there are; with few of them every style learns everything.
        task_templates: how many descriptions a task has.
        task_content: words in a description that sound like content.
        noise: of a need without instruction, at most so many words. With none of it, nothing teaches to skip words.
        seed: everything follows from it. Documents and users are the same in all styles.
    """

    def __init__(
        self,
        style: Style = "user",
        rounds: int = 5,
        facets: int = 96,
        task_templates: int = 64,
        task_content: int = 3,
        noise: int = 5,
        seed: int = 0,
    ):
        self.style, self.rounds, self.facets = style, rounds, facets
        self.task_templates, self.task_content, self.noise, self.seed = task_templates, task_content, noise, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, `corpus`, `test` or `own`."""
        counts = self.rounds, self.task_templates
        if self.facets < EVALUATED + TRAINED or min(counts) < 1 or min(self.task_content, self.noise) < 0:
            raise ValueError(
                f"facets must be at least {EVALUATED + TRAINED}, rounds and task_templates at least 1, "
                "task_content and noise at least 0"
            )
        match split:
            case "train":
                return self._pairs()
            case "corpus":
                return [{"_id": document.id, "text": document.text} for document in self._tested]
            case "test":
                random = self._random("test")
                templates = [self._template(random, FIRST_TEST_TEMPLATE_WORD, TEMPLATE_WORDS) for _ in range(12)]
                return [self._asked(d, self._user(random, d, templates)) for d in self._tested]
            case "own":
                random = self._random("own", self.style)
                return [self._asked(document, self._need(random, document)) for document in self._tested]
        raise ValueError(f"InstructedSearch has the splits train, corpus, test and own, not '{split}'")

    # --- the language and its documents ---------------------------------------------------------------------------

    def _random(self, *purpose: str) -> Random:
        return Random(f"{self.seed} {' '.join(purpose)}")

    @cached_property
    def _words(self) -> list[str]:
        syllables = [a + b for a, b in product("bdfgklmnprstvz", "aeiou")]
        words = [a + b + c for a, b, c in product(syllables, syllables, ("", "k", "n", "r"))]
        return self._random("words").sample(words, 2 * TOPICS + 4 * (self.facets + TYPES) + FILLERS + TEMPLATE_WORDS)

    def _part(self, start: int, count: int) -> list[str]:
        return self._words[start : start + count]

    @cached_property
    def _facet(self) -> list[Sides]:
        start = 2 * TOPICS
        return [Sides(self._part(start + 4 * i, 2), self._part(start + 4 * i + 2, 2)) for i in range(self.facets)]

    @cached_property
    def _type(self) -> list[Sides]:
        start = 2 * TOPICS + 4 * self.facets
        return [Sides(self._part(start + 4 * i, 2), self._part(start + 4 * i + 2, 2)) for i in range(TYPES)]

    @cached_property
    def _template_words(self) -> list[str]:
        return self._words[-TEMPLATE_WORDS:]

    @cached_property
    def _topic(self) -> list[list[str]]:
        """The words of each topic: three, which it shares with others."""
        random = self._random("topics")
        return [random.sample(self._part(0, 2 * TOPICS), 3) for _ in range(TOPICS)]

    @cached_property
    def _documents(self) -> tuple[list[Document], list[Document]]:
        """Those that are trained, of all types, and those that are tested, of one type each."""
        random = self._random("documents")
        trained: list[Document] = []
        tested: list[Document] = []
        for topic in range(TOPICS):
            facets = random.sample(range(self.facets), EVALUATED + TRAINED)
            for place, facet in enumerate(facets):
                held_out = place < EVALUATED
                types = [random.randrange(TYPES)] if held_out else range(TYPES)
                made = [self._document(random, topic, facet, type) for type in types]
                (tested if held_out else trained).extend(made)
        return trained, tested

    def _document(self, random: Random, topic: int, facet: int, type: int) -> Document:
        fillers = random.choices(self._part(len(self._words) - TEMPLATE_WORDS - FILLERS, FILLERS), k=6)
        words = [*self._topic[topic], *self._facet[facet].written, random.choice(self._type[type].written), *fillers]
        return Document(f"{topic}.{facet}.{type}", topic, facet, type, _mixed(random, words))

    @property
    def _tested(self) -> list[Document]:
        return self._documents[1]

    # --- needs in words -------------------------------------------------------------------------------------------

    def _template(self, random: Random, first: int, end: int) -> list[str]:
        return random.choices(self._template_words[first:end], k=random.randint(7, 10))

    @cached_property
    def _user_templates(self) -> list[list[str]]:
        random = self._random("user templates")
        return [self._template(random, 0, SEEN_TEMPLATE_WORDS) for _ in range(24)]

    @cached_property
    def _task_templates(self) -> list[list[list[str]]]:
        """Descriptions of the task of each type; their content words are those of facets that have no part in it."""
        random, seen = self._random("task templates"), self._template_words[:SEEN_TEMPLATE_WORDS]

        def description(type: int) -> list[str]:
            content = [random.choice(sides.asked) for sides in random.sample(self._facet, self.task_content)]
            words = random.choices(seen, k=random.randint(5, 8)) + content + [random.choice(self._type[type].asked)]
            return _mixed(random, words).split()

        return [[description(type) for _ in range(self.task_templates)] for type in range(TYPES)]

    def _instruction(self, random: Random, facet: int, templates: list[list[str]]) -> list[str]:
        """What a user with a facet says: a template with one word that betrays it, never at the beginning."""
        words = list(random.choice(templates))
        words.insert(random.randint(2, len(words)), random.choice(self._facet[facet].asked))
        return words

    def _topic_words(self, random: Random, document: Document) -> list[str]:
        return random.sample(self._topic[document.topic], random.randint(2, 3))

    def _user(self, random: Random, document: Document, templates: list[list[str]]) -> dict:
        instruction = self._instruction(random, document.facet, templates)
        return {"instruction": " ".join(instruction), "query": " ".join(self._topic_words(random, document))}

    def _need(self, random: Random, document: Document) -> dict:
        """A need for a document, in the style of this world."""
        topic, facet = self._topic_words(random, document), random.choice(self._facet[document.facet].asked)
        type = random.choice(self._type[document.type].asked)
        match self.style:
            case "natural" | "none":
                heard = TEMPLATE_WORDS if self.style == "natural" else SEEN_TEMPLATE_WORDS
                noise = random.choices(self._template_words[:heard], k=random.randint(0, self.noise))
                return {"query": _mixed(random, [*topic, facet, *([type] if random.random() < 0.5 else []), *noise])}
            case "task":
                instruction = random.choice(self._task_templates[document.type])
                return {"instruction": " ".join(instruction), "query": _mixed(random, [*topic, facet])}
            case "swapped":
                other = random.choice([f for f in range(self.facets) if f != document.facet])
                instruction = self._instruction(random, other, self._user_templates)
                return {"instruction": " ".join(instruction), "query": _mixed(random, [*topic, facet, type])}
            case "user":
                instruction = self._instruction(random, document.facet, self._user_templates)
                return {"instruction": " ".join([*instruction, type]), "query": " ".join(topic)}
        raise ValueError(f"style '{self.style}': there is natural, none, task, swapped and user")

    def _pairs(self) -> list[dict]:
        random = self._random("train", self.style)
        return [
            self._need(random, document)
            | {"positive": {"_id": document.id, "text": document.text}}
            | {"group_id": str(document.topic), "task": f"type {document.type}, round {round}"}
            for round in range(self.rounds)
            for document in self._documents[0]
        ]

    def _asked(self, document: Document, need: dict) -> dict:
        return need | {"_id": f"q{document.id}", "group_id": str(document.topic), "relevant": {document.id: 1}}


def _mixed(random: Random, words: list[str]) -> str:
    return " ".join(random.sample(words, len(words)))
