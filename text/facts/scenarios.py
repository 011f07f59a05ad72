"""Which fact plays which part: injected again and again, in other words each time, once, or never.

Knows records and nothing else; what a scenario means for a run is in text/facts/knowledge.py.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from text.errors import DataFormatError, UserError
from text.records import KnowledgeRecord, Located, Scenario

Assignment = Literal["official", "field", "round_robin", "crossed"]
Records = Sequence[Located[KnowledgeRecord]]

SCENARIOS: tuple[Scenario, ...] = ("duplication", "paraphrase", "once")

# The published file: 40 records each, and ten that were probed but never injected (appendix D).
PUBLISHED: tuple[Scenario, ...] = ("paraphrase", "duplication", "once", "control")
PUBLISHED_SIZES = (120, 130)


def assign_scenarios(
    records: Records,
    how: Assignment,
    *,
    rotation: int = 0,
    seed: int = 0,
    control_fraction: float = 0.0,
    dealt: Sequence[Scenario] = SCENARIOS,
) -> list[Scenario]:
    """The scenario of every record.

    Args:
        records: the records, in the order of their source.
        how: `official`: the record's `official_pool`. `field`: the record's own `scenario`.
            `round_robin`: ``dealt`` in turn, in the order of hash(seed, id); records without paraphrases among
            themselves, over the other scenarios. `crossed`: record i gets ``dealt[(i + rotation) mod len(dealt)]``, so
            that over all rotations every record plays every part.
        rotation: shifts what `round_robin` and `crossed` deal.
        seed: of `round_robin` and of the choice of controls.
        control_fraction: this share of the records, at least one, is probed but never injected: the same ones in every
            rotation.
        dealt: what `round_robin` and `crossed` deal.

    Raises:
        DataFormatError: naming each record that cannot be assigned.
        UserError: for arguments out of range.
    """
    if not 0 <= control_fraction < 1:
        raise UserError(f"control_fraction is {control_fraction}: it must be at least 0 and below 1")
    if not dealt:
        raise UserError("no scenario to deal: give some of duplication, paraphrase, once, control")
    ranked = shuffled_records(records, seed)
    controls = set(ranked[: max(1, round(control_fraction * len(records)))] if control_fraction else [])
    scenarios: list[Scenario] = ["control"] * len(records)
    problems: list[str] = []
    turns: Counter[bool] = Counter()
    for i in ranked if how == "round_robin" else range(len(records)):
        if i in controls:
            continue
        table = how == "round_robin" and bool(records[i].record.paraphrases)
        try:
            scenarios[i] = _scenario(records[i], how, turns[table] + rotation, dealt)
        except UserError as error:
            problems.append(f"{records[i].where}: {error}")
        turns[table] += 1
    if problems:
        raise DataFormatError(problems)
    return scenarios


def shuffled_records(records: Records, seed: int) -> list[int]:
    """The places of the records in a random order; which of two comes first does not depend on the others."""

    def rank(i: int) -> str:
        return hashlib.sha256(f"{seed}:{records[i].name}".encode()).hexdigest()

    return sorted(range(len(records)), key=rank)


def published_pools(records: Records) -> list[Located[KnowledgeRecord]]:
    """The records, with the pools of the published file if they are that file, which names none."""
    if len(records) not in PUBLISHED_SIZES or any(located.record.official_pool for located in records):
        return list(records)
    pools = [PUBLISHED[place // 40] for place in range(len(records))]
    return [
        replace(located, record=located.record.model_copy(update={"official_pool": pool}))
        for located, pool in zip(records, pools, strict=True)
    ]


def _scenario(located: Located[KnowledgeRecord], how: Assignment, turn: int, dealt: Sequence[Scenario]) -> Scenario:
    record = located.record
    match how:
        case "field":
            if record.scenario is None:
                raise UserError("field 'scenario': missing, and scenario_assignment is 'field'")
            return record.scenario
        case "crossed":
            if "paraphrase" in dealt and not record.paraphrases:
                raise UserError("field 'paraphrases': empty, but in a crossed design every record is paraphrased once")
            return dealt[turn % len(dealt)]
        case "round_robin":
            hand = [scenario for scenario in dealt if scenario != "paraphrase" or record.paraphrases]
            if not hand:
                raise UserError("field 'paraphrases': empty, and no other scenario is dealt")
            return hand[turn % len(hand)]
    for scenario in PUBLISHED:
        if scenario == record.official_pool:
            return scenario
    pool = f"'{record.official_pool}'" if record.official_pool else "missing"
    raise UserError(
        f"field 'official_pool': {pool}, not one of {', '.join(PUBLISHED)}. For facts of your own take"
        " scenario_assignment round_robin, crossed or field"
    )
