"""When facts are met, in which words, and in which rows: golden plans (spec A2 and A4) and their laws."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.errors import DataFormatError, UserError
from text.facts.knowledge import (
    Exposure,
    Fact,
    Facts,
    InjectionSchedule,
    assemble_facts,
    exposure_steps,
    pack_rows,
    plan_exposures,
)
from text.records import KnowledgeRecord, Located


def facts(*scenarios, paraphrases=9):
    rewrites = tuple(f"p{i}" for i in range(paraphrases))
    return Facts(
        "f", "0", tuple(Fact(str(i), s, "original", rewrites, (), f"f.jsonl:{i + 1}") for i, s in enumerate(scenarios))
    )


def told(plan, fact):
    return {step: exposure.text for step, exposures in plan.items() for exposure in exposures if exposure.fact == fact}


def test_the_three_scenarios():
    schedule = InjectionSchedule(n_injections=3, interval=10, start_step=5)
    plan = plan_exposures(facts("duplication", "paraphrase", "once", "control"), schedule, rows=8)
    assert told(plan, 0) == {0: "original", 10: "original", 20: "original"}
    assert told(plan, 1) == {0: "original", 10: "p0", 20: "p1"}
    assert told(plan, 2) == {0: "original"}
    assert told(plan, 3) == {}
    assert exposure_steps(plan, 4) == [[0, 10, 20], [0, 10, 20], [0], []]
    assert [schedule.start_step + step for step in plan] == [5, 15, 25]
    assert plan[10] == [Exposure(0, 1, "original"), Exposure(1, 1, "p0")]


def test_too_few_paraphrases_are_refused_or_repeated():
    few = facts("paraphrase", paraphrases=2)
    with pytest.raises(DataFormatError, match=r"f\.jsonl:1: field 'paraphrases': 2 items but 5 exposures need 4"):
        plan_exposures(few, InjectionSchedule(5, 10), 8)
    cycled = plan_exposures(few, InjectionSchedule(5, 10, paraphrase_policy="cycle"), 8)
    assert list(told(cycled, 0).values()) == ["original", "p0", "p1", "p0", "p1"]
    with pytest.raises(DataFormatError, match="0 items but 2 exposures need 1"):
        plan_exposures(facts("paraphrase", paraphrases=0), InjectionSchedule(2, paraphrase_policy="cycle"), 8)
    assert plan_exposures(facts("paraphrase", paraphrases=0), InjectionSchedule(1), 8)


def test_explicit_steps_and_a_popularity_sweep():
    plan = plan_exposures(facts("duplication"), InjectionSchedule(steps=(0, 3, 4)), 8)
    assert exposure_steps(plan, 1) == [[0, 3, 4]]
    sweep = InjectionSchedule(3, intervals=(2, 8))
    assert exposure_steps(plan_exposures(facts(*["duplication"] * 3), sweep, 8), 3) == [
        [0, 2, 4],
        [0, 8, 16],
        [0, 2, 4],
    ]


def test_waves_wait_for_the_next_steps():
    plan = plan_exposures(facts(*["duplication"] * 5), InjectionSchedule(2, 10), rows=2)
    assert {step: [e.fact for e in exposures] for step, exposures in plan.items()} == {
        0: [0, 1], 1: [2, 3], 2: [4], 10: [0, 1], 11: [2, 3], 12: [4],
    }  # fmt: skip
    assert exposure_steps(plan, 5)[4] == [2, 12]


def test_waves_must_be_through_before_the_next_injection():
    with pytest.raises(UserError, match=r"5 passages in batches of 2 rows.*step 2"):
        plan_exposures(facts(*["duplication"] * 5), InjectionSchedule(2, 2), rows=2)
    # Whoever is met once has no next injection to run into.
    assert plan_exposures(facts(*["once"] * 50), InjectionSchedule(2, 2), rows=2)[24]


def test_other_ways_of_overflow():
    many = facts(*["duplication"] * 5)
    assert len(plan_exposures(many, InjectionSchedule(1), 2, "pack")[0]) == 5
    with pytest.raises(UserError, match="5 passages at one step but the batch has 2 rows"):
        plan_exposures(many, InjectionSchedule(1), 2, "error")
    assert len(plan_exposures(many, InjectionSchedule(1), 5, "error")[0]) == 5


@given(
    st.lists(st.sampled_from(["duplication", "paraphrase", "once", "control"]), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 8),
    st.none() | st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_waves_lose_nothing_and_keep_their_order(scenarios, n, interval, rows, intervals):
    schedule = InjectionSchedule(n, interval, intervals=intervals and tuple(intervals))
    try:
        plan = plan_exposures(facts(*scenarios), schedule, rows)
    except UserError as error:
        assert "not through" in str(error)  # noqa: PT017
        return
    assert all(0 < len(exposures) <= rows for exposures in plan.values())
    met = [exposure for step in sorted(plan) for exposure in plan[step]]
    for index, scenario in enumerate(scenarios):
        numbers = [exposure.number for exposure in met if exposure.fact == index]
        assert numbers == list(range({"control": 0, "once": 1}.get(scenario, n)))
    for index, steps in enumerate(exposure_steps(plan, len(scenarios))):
        due = schedule.steps_of(index)[: len(steps)]  # what is shown once may wait longer
        assert all(d <= step for d, step in zip(due, steps, strict=False))
        assert all(step < d for d, step in zip(due[1:], steps, strict=False))


def test_packing_is_as_even_as_possible():
    assert pack_rows(5, 2) == [range(0, 3), range(3, 5)]
    assert pack_rows(3, 8) == [range(0, 1), range(1, 2), range(2, 3)]
    assert pack_rows(128, 65) == [range(2 * i, 2 * i + 2) for i in range(63)] + [range(126, 127), range(127, 128)]


@given(st.integers(0, 300), st.integers(1, 100))
def test_packing_places_everything_once(n, rows):
    parts = pack_rows(n, rows)
    assert [i for part in parts for i in part] == list(range(n))
    assert len(parts) == min(n, rows)
    assert all(len(a) >= len(b) for a, b in pairwise(parts))


@pytest.mark.parametrize(
    "bad",
    [
        {"n_injections": 0},
        {"interval": 0},
        {"start_step": -1},
        {"steps": ()},
        {"steps": (3, 3)},
        {"steps": (-1, 2)},
        {"intervals": (4, 0)},
        {"steps": (1,), "intervals": (2,)},
    ],
)
def test_impossible_schedules_are_refused(bad):
    with pytest.raises(UserError):
        InjectionSchedule(**bad)


def test_facts_are_the_records_in_order():
    record = KnowledgeRecord(train_context="t", paraphrases=["p"], mem_input=["a"], mem_target=["b"])
    made = assemble_facts("f", [Located(record, "f:1", 0), Located(record.model_copy(update={"id": "k"}), "f:3", 1)])
    assert [fact.id for fact in made] == ["0", "k"]
    assert made[1] == Fact("k", "control", "t", ("p",), tuple(record.all_probes()), "f:3")
    assert len(made) == 2
    changed = record.model_copy(update={"train_context": "u"})
    assert len({assemble_facts("f", [Located(r, "f:1", 0)]).sha256 for r in (record, record, changed)}) == 2
