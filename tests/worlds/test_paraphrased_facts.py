"""Facts in two wordings: what training and test share, and what they must not."""

from __future__ import annotations

import pytest

from worlds import ParaphrasedFacts

SIZES = {"entities": 8, "tested": 3, "relations": 4, "unseen": 2, "values": 10, "pairs": 60, "documents": 40, "seed": 5}
WORLD = ParaphrasedFacts(**SIZES)


def test_questions_name_their_passage_by_its_entity_alone():
    passages = {passage["id"]: passage["text"] for passage in WORLD.records("corpus")}
    assert len(passages) == 11 * 6
    for question in WORLD.records("test"):
        [gold] = question["gold_ids"]
        words, shown = set(question["question"].split()), passages[gold].split()
        assert question["answers"][0] in shown
        assert len(words & set(shown) - {"the", "of", "is"}) in (1, 2)  # both syllables of the entity may be one


def test_the_test_is_about_other_entities_and_training_asks_for_seen_relations():
    def asked(records):
        return {tuple(r["question"].split()[2:4]) for r in records}, {r["question"].split()[1] for r in records}

    trained, known = asked([r for r in WORLD.records("train") if r["question"].startswith("ask")])
    tested = WORLD.records("test")
    assert not trained & asked(tested)[0]
    seen, unseen = (asked([r for r in tested if r["domain"] == domain])[1] for domain in ("seen", "unseen"))
    assert (len(seen), len(unseen)) == (4, 2)
    assert known == seen
    assert not seen & unseen
    held_out = {r["segments"][0].get("retrieve") for r in WORLD.records("val")} - {None}
    assert not held_out & {r["segments"][0].get("retrieve") for r in WORLD.records("train")}


def test_every_fact_is_asked_for_before_any_comes_again():
    """The first fact of a round was drawn before the round was shuffled: one came twice, another not at all."""
    world = ParaphrasedFacts(**SIZES | {"plain": 0.0, "pairs": 81})  # three rounds of 27 facts
    cited = [record["segments"][0]["retrieve"] for record in world.records("train")]
    rounds = [cited[first : first + 27] for first in (0, 27, 54)]
    assert [len(set(facts)) for facts in rounds] == [27, 27, 27]
    assert rounds[0] != rounds[1]


def test_documents_pair_both_words_of_every_relation_about_others():
    documents = ParaphrasedFacts("documents", **SIZES)
    text = " ".join(f"{d['question']} {d['segments'][0]['text']}" for d in documents.records("train"))
    assert len(documents.records("val")) == 2
    for question in WORLD.records("test"):
        assert question["question"].split()[1] in text
        assert " ".join(question["question"].split()[2:4]) + " " not in text


def test_runs_may_share_a_language():
    one, other = (ParaphrasedFacts(world=1, seed=seed) for seed in (1, 2))
    assert one.records("corpus") == other.records("corpus")
    assert one.records("train") != other.records("train")
    assert one.records("train") == ParaphrasedFacts(world=1, seed=1).records("train")


def test_wrong_worlds_are_refused():
    with pytest.raises(ValueError, match="entities at most"):
        ParaphrasedFacts(entities=5000).records("corpus")
    with pytest.raises(ValueError, match="splits corpus, train, val and test"):
        WORLD.records("dev")
