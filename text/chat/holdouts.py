"""Which records are kept from training, so that a test asks for what was never trained (arXiv 2405.17977, and beyond).

The paper holds out system messages. Here whole values, pairs of values, or branches of the hierarchy can be held out
instead. This file knows records by their group and their values; it does not know prompts or answers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, Protocol

from text.errors import UserError

SplitBy = Literal["instruction", "value", "value_pair", "subdimension"]


class Value(NamedTuple):
    """A value as it is told from others: its dimension and its name, without regard to capitals."""

    dimension: str
    name: str

    @classmethod
    def of(cls, dimension: str, name: str) -> Value:
        """The value that goes by these words."""
        return cls(dimension.strip().casefold(), name.strip().casefold())


class HasValues(Protocol):
    """What is asked of a record."""

    dimension: str
    subdimension: str
    preference: str


@dataclass(frozen=True)
class Member:
    """A record, as far as splits go.

    Args:
        group: its instruction; records of one group are variants of it.
        name: tells it from the other variants.
        values: of its preference set.
    """

    group: str
    name: str
    values: Sequence[HasValues] = ()


@dataclass(frozen=True)
class Split:
    """A list of records in three parts, by position and in order.

    Args:
        by: what the two parts that are used do not have in common.
        train: positions of the records to train on.
        held_out: positions of those to test on.
        dropped: positions of those that would tie the two together.
        units: how many instructions, values, pairs or branches are held out.
        shared_groups: instructions that have records in both parts.
    """

    by: SplitBy
    train: list[int]
    held_out: list[int]
    dropped: list[int]
    units: int
    shared_groups: int

    def __str__(self) -> str:
        """The sizes, as a run reports them."""
        return (
            f"split by {self.by}: {len(self.train):,} records to train on, {len(self.held_out):,} held out with "
            f"{self.units:,} units, {len(self.dropped):,} left out that belong to both; {self.shared_groups:,} "
            "instructions have records in both parts"
        )


def hold_out(members: Sequence[Member], by: SplitBy, fraction: float = 0.1, seed: int = 0) -> Split:
    """Hold records out, one by one with all their units, until those that have no other units are ``fraction`` of all.

    * ``instruction``: no instruction occurs in both parts.
    * ``value``: no (dimension, preference) of a held-out record occurs in training.
    * ``subdimension``: no branch of the hierarchy that a held-out record has a value of occurs in training.
    * ``value_pair``: no two values of different dimensions that a held-out record has occur together in a training
      record, but every value occurs in training.

    Records that have units of both parts belong to neither. Where few values serve many records those are many: the
    price of a guarantee. The order in which records are tried is a hash of the seed, not that of the list.

    Raises:
        UserError: if a part would be empty, or a record has no values to split by.
    """
    if not 0 < fraction < 1:
        raise UserError(f"holdout_fraction is {fraction}: it must lie between 0 and 1")
    if by != "instruction" and (without := sum(not member.values for member in members)):
        raise UserError(
            f"split_by '{by}' needs the field 'preference_set', and {without:,} of {len(members):,} records have none"
        )
    search = _Search(members, by)
    wanted = max(1, round(fraction * len(members)))
    for place in sorted(range(len(members)), key=lambda place: _rank(seed, search.name(place))):
        if len(search.inside) >= wanted:
            break
        search.take(place)
    train = [place for place in range(len(members)) if place not in search.touched]
    if not train or not search.inside:
        left = "to train on" if search.inside else "to hold out"
        raise UserError(
            f"split_by '{by}' with holdout_fraction {fraction} and seed {seed} leaves no record {left} of "
            f"{len(members):,}: too few {by.replace('_', ' ')}s serve too many records; try another fraction"
        )
    both = {members[place].group for place in train} & {members[place].group for place in search.inside}
    dropped = sorted(search.touched - search.inside)
    return Split(by, train, sorted(search.inside), dropped, len(search.units), len(both))


def choose_variants(members: Sequence[Member], most: int, seed: int = 0) -> list[int]:
    """Positions of at most so many records of every group, chosen by a hash of the seed, the group and the record."""
    if most < 1:
        raise UserError(f"variants_per_instruction is {most}: it must be 1 or more, or null for all")
    groups: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        groups.setdefault(member.group, []).append(place)
    chosen: list[int] = []
    for group, places in groups.items():
        chosen += sorted(places, key=lambda place: _rank(seed, (group, members[place].name)))[:most]
    return sorted(chosen)


def values_of(member: Member) -> list[Value]:
    """The values of a record, in its order."""
    return [Value.of(value.dimension, value.preference) for value in member.values]


def value_pairs(member: Member) -> Iterator[tuple[Value, Value]]:
    """All pairs of its values that are of two dimensions, each in alphabetic order."""
    for first, second in combinations(sorted(set(values_of(member))), 2):
        if first.dimension != second.dimension:
            yield first, second


def _branches(member: Member) -> Iterator[tuple[str, str]]:
    for value in member.values:
        yield Value.of(value.dimension, value.subdimension)


UNITS: dict[SplitBy, Callable[[Member], Iterable[Hashable]]] = {
    "instruction": lambda member: [member.group],
    "value": values_of,
    "value_pair": value_pairs,
    "subdimension": _branches,
}


class _Search:
    """What is held out so far.

    Attributes:
        units: of the records that were taken.
        touched: records that have any of them.
        inside: records that have units, and only those.
    """

    def __init__(self, members: Sequence[Member], by: SplitBy):
        self.members, self.by = members, by
        self.of = [tuple(dict.fromkeys(UNITS[by](member))) for member in members]
        self.having: dict[Hashable, list[int]] = {}
        for place, units in enumerate(self.of):
            for unit in units:
                self.having.setdefault(unit, []).append(place)
        self.missing = [len(units) for units in self.of]
        self.left = Counter(value for member in members for value in set(values_of(member)))
        self.units: set[Hashable] = set()
        self.touched: set[int] = set()
        self.inside: set[int] = set()

    def name(self, place: int) -> Hashable:
        """What a record is drawn by: variants of an instruction stay together where instructions are split."""
        member = self.members[place]
        return member.group if self.by == "instruction" else (member.group, member.name)

    def take(self, place: int) -> None:
        """Hold out the units of a record, unless a value would lose its last training record to a pair."""
        new = [unit for unit in self.of[place] if unit not in self.units]
        newly = {other for unit in new for other in self.having[unit]} - self.touched
        loss = Counter(value for other in newly for value in set(values_of(self.members[other])))
        if self.by == "value_pair" and any(self.left[value] <= count for value, count in loss.items()):
            return
        self.left -= loss
        self.touched |= newly
        self.units.update(new)
        for unit in new:
            for other in self.having[unit]:
                self.missing[other] -= 1
                if not self.missing[other]:
                    self.inside.add(other)


def _rank(seed: int, name: Hashable) -> str:
    return hashlib.sha256(f"{seed} {name!r}".encode()).hexdigest()
