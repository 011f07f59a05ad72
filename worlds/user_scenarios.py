"""Real queries with made-up instructions: who asks and why, or what a retrieval task is called (arXiv 2402.14334).

The queries are those of MS MARCO that InstructIR's authors gave no instructions (docs/instructir.md, data). The passage
that answers is the same whatever the instruction says: what can be learnt is to keep to the topic when somebody talks.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from random import Random
from typing import Literal

from worlds.world import World

TASKS = [
    f"{verb} {thing} {end}"
    for verb, thing, end in product(
        ("Retrieve", "Find", "Given a web search query, retrieve", "Search for", "Represent this query to look up"),
        ("passages", "relevant passages", "documents", "text passages", "the paragraphs"),
        ("that answer the query.", "for question answering."),
    )
]
JOBS = (
    "nurse on night shifts",
    "high school teacher",
    "retired engineer",
    "student in the first year",
    "parent of two young children",
    "manager of a small shop",
    "journalist at a local paper",
    "farmer",
    "civil servant",
    "software developer",
    "physiotherapist",
    "writer of short stories",
)
PURPOSES = (
    "preparing a talk for people who know nothing of the matter",
    "about to make a decision that I cannot take back",
    "writing a report that is due tomorrow",
    "settling an argument with a friend",
    "helping a neighbour who has asked me about it",
    "new to the subject and somewhat lost",
    "checking what I was told last week",
    "collecting material for a handbook",
)
WISHES = (
    "I would like a short answer in plain words",
    "figures matter more to me than opinions",
    "I need the background as well as the result",
    "please leave technical terms aside",
    "I am looking for steps that I can follow myself",
    "I want to know what experts agree on",
    "examples from daily life would help me most",
    "I prefer a source that explains why",
)


class UserScenarios(World):
    """Training pairs: a query, its passage, and an instruction in a style.

    Args:
        folder: of InstructIR, with seed_train_queries.jsonl, qrels/seed_train.tsv and corpus.jsonl.
        style: no instruction (``none``), one of 50 names of a retrieval ``task``, or what a ``user`` says.
        rounds: how often every query is asked, each time with another instruction.
        seed: of the instructions.
    """

    def __init__(self, folder: str, style: Literal["none", "task", "user"] = "user", rounds: int = 8, seed: int = 0):
        self.folder, self.style, self.rounds, self.seed = folder, style, rounds, seed

    def records(self, split: str) -> list[dict]:
        """The records of `train`, the only split."""
        if split != "train":
            raise ValueError(f"UserScenarios has pairs to train on, and no '{split}'")
        passages = {row["_id"]: row for row in self._rows("corpus.jsonl")}
        answers = [line.split("\t") for line in self._lines("qrels/seed_train.tsv")[1:]]
        passage_of = {query: passages[passage] for query, passage, _ in answers}
        random = Random(f"{self.seed} {self.style}")
        return [
            {"query": row["text"], "group_id": row["_id"], "positive": passage_of[row["_id"]], "task": f"round {round}"}
            | self._instruction(random)
            for round in range(self.rounds)
            for row in self._rows("seed_train_queries.jsonl")
        ]

    def _instruction(self, random: Random) -> dict[str, str]:
        match self.style:
            case "none":
                return {}
            case "task":
                return {"instruction": random.choice(TASKS)}
            case "user":
                job, purpose, wish = random.choice(JOBS), random.choice(PURPOSES), random.choice(WISHES)
                return {"instruction": f"I am a {job}, {purpose}; {wish}."}
        raise ValueError(f"style '{self.style}': there is none, task and user")

    def _lines(self, name: str) -> list[str]:
        path = Path(self.folder).expanduser() / name
        if not path.is_file():
            raise ValueError(f"{path} is not there: give 'folder', a folder of InstructIR (docs/instructir.md, data)")
        # not splitlines: passages hold characters that it takes for the end of a line
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line]

    def _rows(self, name: str) -> list[dict]:
        return [json.loads(line) for line in self._lines(name)]
