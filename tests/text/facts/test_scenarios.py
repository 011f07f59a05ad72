"""Who plays which part: golden assignments, balance, and what cannot be assigned."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.errors import DataFormatError, UserError
from text.facts.scenarios import SCENARIOS, assign_scenarios, published_pools, shuffled_records
from text.records import KnowledgeRecord, Located


def records(n, paraphrased=lambda i: True, **fields):
    return [
        Located(
            KnowledgeRecord.model_validate(
                {
                    "train_context": "t",
                    "probes": [{"type": "mem", "input": "a", "target": "b"}],
                    "paraphrases": ["p"] if paraphrased(i) else [],
                    **{name: value(i) for name, value in fields.items()},
                }
            ),
            f"facts.jsonl:{i + 1}",
            i,
        )
        for i in range(n)
    ]


def test_crossed_is_a_latin_square():
    runs = [assign_scenarios(records(6), "crossed", rotation=k) for k in range(3)]
    d, p, o = SCENARIOS
    assert runs == [[d, p, o, d, p, o], [p, o, d, p, o, d], [o, d, p, o, d, p]]
    assert all(set(parts) == set(SCENARIOS) for parts in zip(*runs, strict=True))
    two = assign_scenarios(records(4), "crossed", rotation=1, dealt=("duplication", "control"))
    assert two == ["control", "duplication"] * 2


def test_crossed_needs_paraphrases_unless_none_are_dealt():
    facts = records(4, lambda i: i != 2)
    with pytest.raises(DataFormatError, match=r"facts\.jsonl:3: field 'paraphrases': empty"):
        assign_scenarios(facts, "crossed")
    assert assign_scenarios(facts, "crossed", dealt=("duplication", "once"))[:2] == ["duplication", "once"]


def test_field_takes_the_records_own():
    own = ["once", "control", "paraphrase"]
    assert assign_scenarios(records(3, scenario=lambda i: own[i]), "field") == own
    with pytest.raises(DataFormatError, match=r"facts\.jsonl:1: field 'scenario': missing"):
        assign_scenarios(records(1), "field")


def test_official_takes_the_pool_or_the_published_order():
    pools = ["once", "control", "paraphrase"]
    assert assign_scenarios(records(3, official_pool=lambda i: pools[i]), "official") == pools
    published = assign_scenarios(published_pools(records(130)), "official")
    assert published == ["paraphrase"] * 40 + ["duplication"] * 40 + ["once"] * 40 + ["control"] * 10
    with pytest.raises(DataFormatError, match=r"facts\.jsonl:1: field 'official_pool': missing.*round_robin"):
        assign_scenarios(published_pools(records(30)), "official")
    with pytest.raises(DataFormatError, match="field 'official_pool': 'twice', not one of"):
        assign_scenarios(records(1, official_pool=lambda i: "twice"), "official")


@given(st.integers(1, 60), st.integers(0, 3), st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.5]))
def test_round_robin_is_balanced_and_respects_what_records_have(n, rotation, seed, control_fraction):
    facts = records(n, lambda i: i % 3 != 0)
    parts = assign_scenarios(facts, "round_robin", rotation=rotation, seed=seed, control_fraction=control_fraction)
    assert parts == assign_scenarios(
        facts, "round_robin", rotation=rotation, seed=seed, control_fraction=control_fraction
    )
    assert parts.count("control") == (max(1, round(control_fraction * n)) if control_fraction else 0)
    able = Counter(part for i, part in enumerate(parts) if i % 3 and part != "control")
    unable = Counter(part for i, part in enumerate(parts) if i % 3 == 0 and part != "control")
    assert "paraphrase" not in unable
    for counts, kinds in ((able, 3), (unable, 2)):
        numbers = [*counts.values(), *[0] * (kinds - len(counts))]
        assert max(numbers) - min(numbers) <= 1


def test_controls_stay_the_same_over_rotations_and_records_turn():
    runs = [assign_scenarios(records(20), "crossed", rotation=k, control_fraction=0.2) for k in range(3)]
    controls = [{i for i, part in enumerate(run) if part == "control"} for run in runs]
    assert len(controls[0]) == 4
    assert controls[0] == controls[1] == controls[2]
    assert all(len({run[i] for run in runs}) == 3 for i in range(20) if i not in controls[0])


def test_a_record_keeps_its_rank_when_others_leave():
    facts = records(30)
    order = [facts[i].name for i in shuffled_records(facts, 7)]
    some = [fact for fact in facts if fact.row % 2]
    assert [some[i].name for i in shuffled_records(some, 7)] == [name for name in order if int(name) % 2]
    assert order != [facts[i].name for i in shuffled_records(facts, 8)]


def test_arguments_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"control_fraction is 1\.0"):
        assign_scenarios(records(2), "crossed", control_fraction=1.0)
    with pytest.raises(UserError, match="no scenario to deal"):
        assign_scenarios(records(2), "crossed", dealt=())
    with pytest.raises(DataFormatError, match="no other scenario is dealt"):
        assign_scenarios(records(1, lambda i: False), "round_robin", dealt=("paraphrase",))
