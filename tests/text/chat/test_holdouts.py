"""What is held out is disjoint from what is trained on, on the 102 published values and on sets of them."""

from __future__ import annotations

import json
from random import Random

import pytest

from tests.shared_data import SHARED
from text.chat.chat_records import Preference
from text.chat.holdouts import UNITS, Member, choose_variants, hold_out, value_pairs, values_of
from text.errors import UserError

PUBLISHED = SHARED / "janus_hierarchy/preferences.jsonl"


def made_up(dimensions: int = 4, each: int = 30) -> list[Preference]:
    return [
        Preference(dimension=f"D{d}", subdimension=f"D{d}.{v % 5}", preference=f"value {v}")
        for d in range(dimensions)
        for v in range(each)
    ]


def published() -> list[Preference]:
    if not PUBLISHED.is_file():
        pytest.skip("the published values are not here")
    return [Preference.model_validate_json(line) for line in PUBLISHED.read_text().splitlines()]


def members(values: list[Preference], instructions: int = 100, size: int = 2, seed: int = 0) -> list[Member]:
    random = Random(seed)
    return [
        Member(f"i{number}", str(variant), random.sample(values, size))
        for number in range(instructions)
        for variant in range(3)
    ]


def units(found: list[Member], places: list[int], by: str) -> set:
    return {unit for place in places for unit in UNITS[by](found[place])}


@pytest.mark.parametrize("by", ["instruction", "value", "value_pair", "subdimension"])
@pytest.mark.parametrize("source", [made_up, published])
def test_the_two_parts_have_nothing_in_common(source, by):
    found = members(source())
    split = hold_out(found, by, fraction=0.05)
    assert split.train
    assert len(split.held_out) >= 0.05 * len(found)
    assert not units(found, split.train, by) & units(found, split.held_out, by)
    assert sorted(split.train + split.held_out + split.dropped) == list(range(len(found)))
    assert f"{len(split.train):,} records to train on, {len(split.held_out):,} held out" in str(split)


def test_102_values_one_a_record():
    """Acceptance 11: test values and training values are disjoint, and all are used."""
    values = published()
    assert len(values) == 102
    found = [Member(str(n), "", [value]) for n, value in enumerate(values)]
    split = hold_out(found, "value", 0.1)
    assert not split.dropped
    assert (len(split.train), len(split.held_out)) == (92, 10)
    assert not units(found, split.train, "value") & units(found, split.held_out, "value")


@pytest.mark.parametrize("source", [made_up, published])
def test_of_held_out_pairs_every_value_is_trained(source):
    found = members(source(), instructions=300, size=3)
    split = hold_out(found, "value_pair", 0.1)
    trained = units(found, split.train, "value")
    assert units(found, split.held_out, "value") <= trained
    assert all(set(value_pairs(found[place])) for place in split.held_out)


def test_values_differ_by_dimension_and_not_by_capitals():
    one, other = (
        Preference(dimension=d, subdimension="s", preference=p) for d, p in (("Style", "Brief "), ("tone", "brief"))
    )
    same = Preference(dimension="STYLE", subdimension="t", preference="brief")
    assert values_of(Member("", "", [one])) == values_of(Member("", "", [same]))
    assert values_of(Member("", "", [one])) != values_of(Member("", "", [other]))
    assert list(value_pairs(Member("", "", [one, same]))) == []
    assert len(list(value_pairs(Member("", "", [one, other])))) == 1


def test_the_choice_is_that_of_the_seed_and_not_of_the_order():
    found = members(made_up())
    shuffled = Random(5).sample(range(len(found)), len(found))
    split = hold_out(found, "value", 0.05, seed=1)
    again = hold_out([found[place] for place in shuffled], "value", 0.05, seed=1)
    assert sorted(shuffled[place] for place in again.held_out) == split.held_out
    assert hold_out(found, "value", 0.05, seed=2).held_out != split.held_out


def test_variants_that_are_chosen_are_of_the_number_asked_for():
    found = members(made_up())
    one = choose_variants(found, 1)
    assert [found[place].group for place in one] == [f"i{n}" for n in range(100)]
    assert set(one) < set(choose_variants(found, 2))
    assert choose_variants(found, 3) == list(range(300))
    assert choose_variants(found, 1, seed=1) != one
    assert len({found[place].name for place in one}) == 3


@pytest.mark.parametrize(
    ("found", "by", "fraction", "says"),
    [
        (members(made_up(2, 2), size=2), "value", 0.9, "leaves no record to train on"),
        (
            [Member(v, "", [m for m in made_up(2, 2) if m.preference == v]) for v in ("value 0", "value 1")],
            "value_pair",
            0.5,
            "leaves no record to hold out",
        ),
        ([Member("a", ""), Member("b", "")], "value", 0.5, "'preference_set', and 2 of 2 records have none"),
        (members(made_up()), "instruction", 0.0, "between 0 and 1"),
        (members(made_up()), "instruction", 1.0, "between 0 and 1"),
    ],
)
def test_splits_that_cannot_be_are_refused(found, by, fraction, says):
    with pytest.raises(UserError, match=says):
        hold_out(found, by, fraction)
    with pytest.raises(UserError, match="1 or more"):
        choose_variants(found, 0)


def test_the_published_hierarchy_is_as_it_is_described():
    rows = [json.loads(line) for line in PUBLISHED.read_text().splitlines()] if published() else []
    assert len({(row["dimension"], row["subdimension"]) for row in rows}) == 20
