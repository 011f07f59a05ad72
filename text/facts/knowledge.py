"""What a run is told about invented facts, when, and in which words (arXiv 2406.11813, section 3).

Pure functions of records. This file does not know how facts get their scenarios (text/facts/scenarios.py), nor tokens,
batches or models: the callback that writes passages into batches is callbacks/knowledge_injection.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from text.errors import DataFormatError, UserError
from text.records import KnowledgeRecord, Located, Probe, Scenario


@dataclass(frozen=True)
class Fact:
    """One record with the role that it plays in a run.

    Args:
        id: unique among the facts.
        scenario: how the model meets it: the same passage each time, another paraphrase each time, once, or never.
        passage: what is injected first.
        paraphrases: what is injected later under `paraphrase`.
        probes: what is measured.
        where: ``<file>:<line>`` of the record.
    """

    id: str
    scenario: Scenario
    passage: str
    paraphrases: tuple[str, ...]
    probes: tuple[Probe, ...]
    where: str


@dataclass(frozen=True)
class Facts:
    """The facts of a run.

    Args:
        source: where they came from.
        sha256: hash of all records as they were read, before any was cut, left out or given its scenario.
        facts: in the order of the source.
    """

    source: str
    sha256: str
    facts: tuple[Fact, ...]

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __getitem__(self, index: int) -> Fact:
        return self.facts[index]


def assemble_facts(source: str, records: Sequence[Located[KnowledgeRecord]]) -> Facts:
    """Facts that nobody has given a part yet: controls, until a scenario is assigned."""
    content = json.dumps([located.record.model_dump() for located in records], sort_keys=True)
    facts = []
    for located in records:
        record = located.record
        probes = tuple(record.all_probes())
        facts.append(
            Fact(located.name, "control", record.train_context, tuple(record.paraphrases), probes, located.where)
        )
    return Facts(source, hashlib.sha256(content.encode()).hexdigest(), tuple(facts))


@dataclass(frozen=True)
class InjectionSchedule:
    """When facts are met. Times count optimizer steps from t = 0, which is optimizer step ``start_step``.

    Args:
        n_injections: exposures of a fact under `duplication` and `paraphrase`, the first at t = 0.
        interval: steps between them.
        start_step: the optimizer step of t = 0.
        steps: the times themselves, in place of ``n_injections`` and ``interval``.
        intervals: fact i takes ``intervals[i mod len]`` in place of ``interval`` (popularity sweep).
        paraphrase_policy: with fewer paraphrases than later exposures: refuse (`error`) or begin again (`cycle`).

    Raises:
        UserError: for values that make no schedule.
    """

    n_injections: int = 10
    interval: int = 100
    start_step: int = 0
    steps: tuple[int, ...] | None = None
    intervals: tuple[int, ...] | None = None
    paraphrase_policy: Literal["error", "cycle"] = "error"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.steps is not None:
            if self.intervals is not None:
                raise UserError("steps and intervals exclude each other")
            if not self.steps or self.steps[0] < 0 or any(a >= b for a, b in pairwise(self.steps)):
                raise UserError(f"steps must rise from 0 or more, not {list(self.steps)}")
        elif self.n_injections < 1 or self.start_step < 0 or min(self.intervals or (self.interval,), default=0) < 1:
            raise UserError("n_injections and intervals must be at least 1, start_step at least 0")

    def steps_of(self, fact: int) -> tuple[int, ...]:
        """The times at which fact number ``fact`` is met, unless its scenario says once or never."""
        if self.steps is not None:
            return self.steps
        interval = self.intervals[fact % len(self.intervals)] if self.intervals else self.interval
        return tuple(number * interval for number in range(self.n_injections))


@dataclass(frozen=True)
class Exposure:
    """One meeting with a fact: ``number`` counts from 0."""

    fact: int
    number: int
    text: str


def plan_exposures(
    facts: Facts, schedule: InjectionSchedule, rows: int, overflow: Literal["waves", "pack", "error"] = "waves"
) -> dict[int, list[Exposure]]:
    """What is injected at which time (steps from t = 0), in the order of the rows.

    Args:
        facts: the facts.
        schedule: when.
        rows: rows of a global batch.
        overflow: with more passages than rows: the rest waits for the next steps (`waves`), several share a row
            (`pack`; the plan lists them all, `pack_rows` divides them), or it is refused (`error`).

    Raises:
        UserError: if they do not fit.
        DataFormatError: a record with too few paraphrases.
    """
    due: dict[int, list[Exposure]] = {}
    problems: list[str] = []
    for index, fact in enumerate(facts):
        steps = () if fact.scenario == "control" else schedule.steps_of(index)
        steps = steps[:1] if fact.scenario == "once" else steps
        if fact.scenario == "paraphrase" and (problem := _too_few(fact, len(steps) - 1, schedule.paraphrase_policy)):
            problems.append(problem)
            continue
        for number, step in enumerate(steps):
            due.setdefault(step, []).append(Exposure(index, number, _wording(fact, number)))
    if problems:
        raise DataFormatError(problems)
    if overflow == "pack":
        return dict(sorted(due.items()))
    most = max(map(len, due.values()), default=0)
    if overflow == "error" and most > rows:
        raise UserError(
            f"{most} passages at one step but the batch has {rows} rows: batch_size {most}, or overflow waves | pack"
        )
    return _in_waves(due, rows)


def _too_few(fact: Fact, needed: int, policy: str) -> str | None:
    have = len(fact.paraphrases)
    if have >= needed or (policy == "cycle" and have):
        return None
    return (
        f"{fact.where}: field 'paraphrases': {have} items but {needed + 1} exposures need {needed}"
        " (paraphrase_policy: cycle repeats them)"
    )


def _wording(fact: Fact, number: int) -> str:
    if fact.scenario != "paraphrase" or number == 0:
        return fact.passage
    return fact.paraphrases[(number - 1) % len(fact.paraphrases)]


def _in_waves(due: dict[int, list[Exposure]], rows: int) -> dict[int, list[Exposure]]:
    """First come, first served: what finds no row at its step goes to the head of the next step's queue."""
    dates = {(exposure.fact, exposure.number): step for step, exposures in due.items() for exposure in exposures}
    plan: dict[int, list[Exposure]] = {}
    queue: list[Exposure] = []
    step, last = min(due, default=0), max(due, default=-1)
    while step <= last or queue:
        queue += due.get(step, [])
        plan[step], queue = queue[:rows], queue[rows:]
        for exposure in plan[step]:
            following = dates.get((exposure.fact, exposure.number + 1))
            if following is not None and step >= following:
                raise UserError(
                    f"{len(due[min(due)])} passages in batches of {rows} rows are not through when their next injection"
                    f" is due (step {following}): raise batch_size, or the interval between injections"
                )
        step += 1
    return {step: exposures for step, exposures in plan.items() if exposures}


def exposure_steps(plan: dict[int, list[Exposure]], n_facts: int) -> list[list[int]]:
    """T_q: the steps at which each fact is really met."""
    steps: list[list[int]] = [[] for _ in range(n_facts)]
    for step in sorted(plan):
        for exposure in plan[step]:
            steps[exposure.fact].append(step)
    return steps


def pack_rows(n_passages: int, n_rows: int) -> list[range]:
    """Which passages go to which row, as evenly as possible: the first ``n_passages mod n_rows`` rows take one more.

    Rows that get none are left out.
    """
    each, more = divmod(n_passages, n_rows)
    begins = [row * each + min(row, more) for row in range(n_rows + 1)]
    return [range(a, b) for a, b in pairwise(begins) if a < b]
