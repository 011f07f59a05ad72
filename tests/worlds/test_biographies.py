"""A world must be the same at every call, and ask only what can be known."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.records import KnowledgeRecord, TextRecord
from worlds import Biographies
from worlds.country import ATTRIBUTES, SPOKEN_OF, STRANGE_HEADS, STRANGE_TAILS

KIND_OF = {value: kind for said in ATTRIBUTES.values() for value, kind in said.kind_of.items()}

worlds = st.builds(
    Biographies,
    people=st.integers(1, 60),
    documents=st.integers(1, 100),
    facts=st.integers(1, 6),
    travellers=st.sampled_from([0.0, 0.2, 1.0]),
    paraphrases=st.integers(0, 12),
    seed=st.integers(0, 10**6),
)


def copy(world):
    return Biographies(world.people, world.documents, world.travellers, world.facts, world.paraphrases, world.seed)


@settings(max_examples=20, deadline=None)
@given(worlds)
def test_worlds_are_deterministic_and_valid(world):
    for split, model in (("train", TextRecord), ("val", TextRecord), ("knowledge", KnowledgeRecord)):
        records = world.records(split)
        assert records == world.records(split) == copy(world).records(split)
        for record in records:
            model.model_validate(record)
    assert len(world.records("train")) == world.documents
    assert len(world.records("knowledge")) == world.facts


@settings(max_examples=20, deadline=None)
@given(worlds)
def test_probes_can_be_answered(world):
    background = [record["text"] for record in world.records("train")]
    heard = {word for text in background for word in re.findall(r"(\w+)\.", text)}
    for record in world.records("knowledge"):
        passage = record["train_context"]
        told = {word for word in re.findall(r"(\w+)\.", passage)}
        for context, target in zip(record["mem_input"], record["mem_target"], strict=True):
            assert f"{context} {target}." in passage
            assert target in heard
        assert record["gen_target"] == record["mem_target"]
        for context, target in zip(record["gen_input"], record["gen_target"], strict=True):
            assert target in told
            assert not any(context in text for text in (passage, *record["paraphrases"]))
        for context, target in zip(record["hard_gen_input"], record["hard_gen_target"], strict=True):
            assert target in heard
            assert target in {KIND_OF[value] for value in told}
            assert target not in told
            assert context not in passage


def test_every_attribute_is_asked_for_in_a_world_of_the_usual_size():
    records = Biographies(documents=2000).records("knowledge")
    assert all(
        len(record[f"{kind}_input"]) == len(ATTRIBUTES) == 6
        for record in records
        for kind in ("mem", "gen", "hard_gen")
    )
    assert all(len(set(record["paraphrases"])) == 9 for record in records)


def test_paraphrases_say_the_same_in_other_words_and_other_order():
    orders = set()
    for record in Biographies(documents=2000).records("knowledge"):
        original = record["train_context"].split(". ")
        for paraphrase in record["paraphrases"]:
            values = re.findall(r"(\w+)\.", paraphrase)
            assert sorted(values) == sorted(record["mem_target"])
            assert not set(paraphrase.split(". ")) & set(original)
            orders.add(tuple(record["mem_target"].index(value) for value in values))
    assert len(orders) > 100


def test_strangers_are_made_of_parts_that_the_background_does_not_have():
    world = Biographies(documents=3000)
    background = " ".join(record["text"] for split in ("train", "val") for record in world.records(split)).lower()
    parts = [part.lower() for part in (STRANGE_HEADS + " " + STRANGE_TAILS).split()]
    assert not [part for part in parts if part in background]
    assert all(any(part in record["train_context"].lower() for part in parts) for record in world.records("knowledge"))
    # Their letters are known, though: a model that never saw a z would have to learn the letter first.
    assert set("".join(parts)) <= set(background)


def test_words_mean_one_thing():
    words = [word for said in ATTRIBUTES.values() for word in [*said.kind_of, *said.kinds]]
    assert len(words) == len(set(words)) == 6 * (24 + 6)
    assert not set("qxz") & set("".join(words).lower())
    for said in ATTRIBUTES.values():
        assert not set("qxz") & set("".join((*said.templates, said.derived)).lower())
        assert len(said.templates) == 10 > SPOKEN_OF
        assert all(template.count("{}") == 1 for template in (*said.templates, said.derived))


def test_names_are_never_shared():
    for people in (480, 9600):
        names = [person.name for person in Biographies(people=people)._population]
        assert len(set(names)) == people
    assert not {name.split()[1] for name in names} & set(KIND_OF)


def test_worlds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="there are 9600 names, not 9601"):
        Biographies(people=9601, documents=1).records("train")
    for bad in ({"people": 0}, {"documents": 0}, {"facts": 0}, {"paraphrases": -1}, {"travellers": 1.5}):
        with pytest.raises(ValueError, match="at least 1"):
            Biographies(**bad).records("val")
    with pytest.raises(ValueError, match="train, val and knowledge, not 'test'"):
        Biographies().records("test")


def test_popularity_falls_with_rank():
    world = Biographies(people=100, documents=2000)
    mentions = [
        sum(record["text"].count(person.name + " ") > 0 for record in world.records("train"))
        for person in world._population
    ]
    assert mentions[0] > 3 * mentions[9] > 3 * mentions[99]
    assert 0.7 < mentions[0] / mentions[1] / 2 < 1.4
