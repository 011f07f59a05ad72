"""From the records of a file to the facts of a run: read, made to fit, drawn, and given their parts.

Puts text/facts/passages.py and text/facts/scenarios.py in order; the rules are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from text.excerpts import shorten
from text.facts.knowledge import Fact, Facts, assemble_facts
from text.facts.passages import LongPassage, Loss, ProbeFilter, Spans, fit_facts
from text.facts.scenarios import SCENARIOS, Assignment, assign_scenarios, published_pools, shuffled_records
from text.records import KnowledgeRecord, Located, Scenario


def choose_facts(
    source: str,
    records: Sequence[Located[KnowledgeRecord]],
    limit: int,
    spans: Spans,
    *,
    seed: int = 0,
    scenario_assignment: Assignment = "official",
    scenarios: Sequence[Scenario] = SCENARIOS,
    rotation: int = 0,
    control_fraction: float = 0.0,
    max_facts: int | None = None,
    long_passage: LongPassage = "error",
    probe_filter: ProbeFilter = "all",
) -> tuple[Facts, list[str]]:
    """The facts of a run, and what was lost on the way, in a sentence for each kind of loss.

    Facts are cut and drawn before they are given scenarios, so that the scenarios come out equally large.

    Args:
        source: the name of the file.
        records: its records.
        limit: tokens that fit into a row.
        spans: character span of every token of a text.
        seed: of the draw, and of `round_robin` and the controls.
        scenario_assignment: see `assign_scenarios`; `crossed` leaves out records without paraphrases.
        scenarios: what `round_robin` and `crossed` deal.
        rotation: shifts what they deal.
        control_fraction: share that is probed but never injected.
        max_facts: draw so many facts at random.
        long_passage: see `fit_facts`.
        probe_filter: see `fit_facts`.
    """
    losses: list[str] = []
    able = published_pools(records)
    if scenario_assignment == "crossed" and "paraphrase" in scenarios:
        able = [located for located in able if located.record.paraphrases]
        if lost := len(records) - len(able):
            losses.append(f"{source}: {lost} records have no paraphrases and take no part in the crossed design")
    facts, lost_facts = fit_facts(assemble_facts(source, able), limit, spans, long_passage, probe_filter)
    left = {fact.id for fact in facts}
    able = [located for located in able if located.name in left]
    drawn = sorted(shuffled_records(able, seed)[:max_facts])
    parts = assign_scenarios(
        [able[i] for i in drawn],
        scenario_assignment,
        rotation=rotation,
        seed=seed,
        control_fraction=control_fraction,
        dealt=scenarios,
    )
    cast = tuple(replace(facts[i], scenario=scenario) for i, scenario in zip(drawn, parts, strict=True))
    return replace(facts, facts=cast), losses + _told(source, cast, lost_facts)


def _told(source: str, used: Sequence[Fact], losses: Sequence[Loss]) -> list[str]:
    """What the facts of the run have lost; what others lost is nobody's business."""
    ids, told = {fact.id for fact in used}, list[str]()
    if gone := [loss for loss in losses if loss.probe is None]:
        what = "facts left out, none of whose targets is in the passage"
        told.append(f"{source}: {len(gone)} {what}; the first: {gone[0].fact.where}")
    cut = [(loss.fact, loss.probe) for loss in losses if loss.probe is not None and loss.fact.id in ids]
    if cut:
        fact, probe = cut[0]
        first = f"{fact.where}, {probe.type} '{shorten(probe.target, 40)}'"
        told.append(f"{source}: the targets of {len(cut)} probes are cut off with their passages; the first: {first}")
    return told
