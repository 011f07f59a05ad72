"""The Multifaceted Collection and Bench (arXiv 2405.17977, section 3): values, the messages that state them, records.

A value is a preference at the end of a hierarchy: dimension, subdimension, preference. A set of them, one of each
dimension, becomes a system message. This file knows records and words. It does not know what is held out
(text/chat/holdouts.py), nor how an answer is judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any

from pydantic import Field

from text.chat.chat_records import ChatRecord, InstructionRecord, Preference, PromptRecord
from text.chat.holdouts import Member
from text.chat.messages import blame
from text.errors import DataFormatError, UserError
from text.judging.rubrics import Rubric
from text.records import Located, Text

OPENING = "You are an assistant who answers as this user values it."
MOST_REPEATED = 0.01  # of the records, before a file is refused


@dataclass(frozen=True)
class Hierarchy:
    """Values by dimension and subdimension, in the order in which they were given.

    Args:
        branches: preferences by subdimension by dimension.
    """

    branches: dict[str, dict[str, tuple[Preference, ...]]]

    @classmethod
    def of(cls, preferences: Iterable[Preference]) -> Hierarchy:
        """The hierarchy of these values; one that is given twice counts once.

        Raises:
            UserError: for none, or a subdimension that belongs to two dimensions.
        """
        found: dict[str, dict[str, dict[str, Preference]]] = {}
        for value in preferences:
            found.setdefault(value.dimension, {}).setdefault(value.subdimension, {})[value.preference] = value
        if not found:
            raise UserError("a hierarchy of values needs some: dimension, subdimension and preference of each")
        names = [name for branches in found.values() for name in branches]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"subdimension '{twice[0]}' belongs to two dimensions: rename it in one of them")
        return cls({d: {s: tuple(leaves.values()) for s, leaves in b.items()} for d, b in found.items()})

    def __len__(self) -> int:
        """Number of values."""
        return sum(len(leaves) for branches in self.branches.values() for leaves in branches.values())

    def values(self, dimension: str) -> list[Preference]:
        """All values of a dimension."""
        return [value for leaves in self.branches[dimension].values() for value in leaves]

    def preference_set(self, seed: int, name: str = "") -> list[Preference]:
        """One value of each dimension: first a branch is drawn, then a leaf of it.

        Args:
            seed: of all sets.
            name: what the set is for; the same set for the same name.
        """
        random = Random(f"{seed} {name}")
        return [random.choice(random.choice([*branches.values()])) for branches in self.branches.values()]


def system_message(preferences: Sequence[Preference], opening: str = OPENING) -> str:
    """A preference set in words: the opening, then a line for each value, its description if it has one.

    The paper lets GPT-4 write it; this is what can be had without.
    """
    lines = [f"{value.dimension}: {(value.description or value.preference).rstrip('.')}." for value in preferences]
    return "\n".join([opening, *lines]).strip()


class BenchRecord(PromptRecord):
    """An instruction of Multifaceted Bench, and what its answers are judged by.

    Args:
        rubric: one criterion or more; ``rubrics`` is the same.
        reference_answer: deserves the highest score.
    """

    rubric: Annotated[list[Rubric], Field(min_length=1)]
    reference_answer: Text | None = None

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        super()._normal(given)
        if "rubrics" in given:
            if "rubric" in given:
                blame("rubrics", "given, and 'rubric' too: one thing, one name")
            given["rubric"] = given.pop("rubrics")


def group_of(record: ChatRecord) -> str:
    """The instruction that a record is a variant of: as it says, or by its prompt."""
    if record.group_id is not None:
        return record.group_id
    prompt = record.prompt if isinstance(record.prompt, str) else [turn.model_dump() for turn in record.prompt]
    return hashlib.sha256(json.dumps(prompt).encode()).hexdigest()


@dataclass(frozen=True)
class Variant(Member):
    """A record as one of the variants of its instruction.

    Args:
        where: it stands.
        system: its message.
        output: its answer.
    """

    where: str = ""
    system: str | None = None
    output: str = ""

    @classmethod
    def of(cls, located: Located[InstructionRecord]) -> Variant:
        """The variant that a record is."""
        record = located.record
        name = f"{record.system}\n{record.id or located.where}"
        return cls(group_of(record), name, record.preference_set, located.where, record.system, record.output)


def check_variants(variants: Sequence[Variant]) -> list[str]:
    """Look for instructions that are asked twice under one message, or answered alike under all.

    Returns: what a user should know, a sentence each.

    Raises:
        DataFormatError: if more than 1 % of the records repeat instruction and message of another.
    """
    first: dict[tuple[str, str | None], str] = {}
    answers: dict[str, list[str]] = {}
    repeated: list[str] = []
    for variant in variants:
        answers.setdefault(variant.group, []).append(variant.output)
        if (where := first.setdefault((variant.group, variant.system), variant.where)) != variant.where:
            repeated.append(f"{variant.where}: field 'system': the same instruction under the same message as {where}")
    if len(repeated) > MOST_REPEATED * len(variants):
        raise DataFormatError(repeated)
    alike = sum(len(texts) > 1 and len(set(texts)) == 1 for texts in answers.values())
    told = {
        f"{len(repeated):,} records repeat the instruction and the message of another": len(repeated),
        f"{alike:,} instructions have the same answer under all their messages: nothing to learn from those": alike,
    }
    return [what for what, count in told.items() if count]


def next_variants(groups: Sequence[str]) -> list[int | None]:
    """For every record the position of the next variant of its instruction, the first after the last; None if alone.

    The answer of that variant is what a pair rejects. How the paper paired answers is not published.
    """
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    following: list[int | None] = [None] * len(groups)
    for places in members.values():
        if len(places) > 1:
            for place, after in zip(places, [*places[1:], places[0]], strict=True):
                following[place] = after
    return following
