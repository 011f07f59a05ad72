"""The world of the InstructIR study: one set of needs, told in five styles, without a word of the document."""

import pytest

from worlds import InstructedSearch

STYLES = ("natural", "none", "task", "swapped", "user")


def words(text: str) -> set[str]:
    return set(text.split())


def test_a_seed_is_a_world():
    assert InstructedSearch(seed=3).records("train") == InstructedSearch(seed=3).records("train")
    assert InstructedSearch(seed=3).records("test") != InstructedSearch(seed=4).records("test")


def test_styles_tell_the_same_needs():
    worlds = [InstructedSearch(style, rounds=1) for style in STYLES]
    for split in ("corpus", "test"):
        assert len({str(world.records(split)) for world in worlds}) == 1
    answers = [[pair["positive"] for pair in world.records("train")] for world in worlds]
    assert all(answer == answers[0] for answer in answers)
    for world in worlds:
        assert all(
            ("instruction" in pair) is (world.style not in ("natural", "none")) for pair in world.records("train")
        )


def test_sizes():
    world = InstructedSearch(rounds=2)
    pairs = world.records("train")
    assert len(pairs) == 2 * 60 * 12 * 4
    assert len({pair["task"] for pair in pairs}) == 4 * 2
    test = world.records("test")
    assert len(test) == len(world.records("corpus")) == 480
    assert {sum(query["group_id"] == str(topic) for query in test) for topic in range(60)} == {8}


def test_tested_needs_were_not_trained():
    world = InstructedSearch()
    trained = {tuple(pair["positive"]["_id"].split(".")[:2]) for pair in world.records("train")}
    tested = {tuple(passage["_id"].split(".")[:2]) for passage in world.records("corpus")}
    assert not trained & tested
    assert {facet for _, facet in tested} <= {facet for _, facet in trained}  # but every facet was, with other topics


@pytest.mark.parametrize("style", STYLES)
def test_only_the_topic_is_shared_with_the_document(style):
    world = InstructedSearch(style, rounds=1)
    topics = {word for topic in world._topic for word in topic}
    passages = {passage["_id"]: words(passage["text"]) for passage in world.records("corpus")}
    for query in world.records("test") + world.records("own"):
        (target,) = query["relevant"]
        shared = (words(query["query"]) | words(query.get("instruction", ""))) & passages[target]
        assert 2 <= len(shared) <= 3
        assert shared <= topics


def test_an_instruction_of_a_user_names_their_facet_and_that_of_another_does_not():
    for style, named in (("user", True), ("swapped", False)):
        world = InstructedSearch(style, rounds=1)
        for pair in world.records("train")[:500]:
            facet = int(pair["positive"]["_id"].split(".")[1])
            assert bool(words(pair["instruction"]) & set(world._facet[facet].asked)) is named


def test_task_descriptions_are_few_and_say_nothing_of_the_need():
    world = InstructedSearch("task", rounds=3, task_templates=5, task_content=2)
    by_type: dict[str, set[str]] = {}
    for pair in world.records("train"):
        by_type.setdefault(pair["task"].split(",")[0], set()).add(pair["instruction"])
    assert [len(texts) for texts in by_type.values()] == [5] * 4
    asked = {word for sides in world._facet for word in sides.asked}
    assert {len(words(text) & asked) for texts in by_type.values() for text in texts} <= {1, 2}


def test_test_templates_hold_words_that_only_natural_queries_have():
    tested = InstructedSearch().records("test")
    for style in STYLES:
        pairs = InstructedSearch(style).records("train")
        trained = {word for pair in pairs for word in words(pair.get("instruction", "")) | words(pair["query"])}
        unseen = [len(words(query["instruction"]) - trained) for query in tested]
        assert max(unseen) == 0 if style == "natural" else 0 < sum(unseen) / len(unseen) < 5


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="facets must be at least 20"):
        InstructedSearch(facets=10).records("train")
    with pytest.raises(ValueError, match="not 'val'"):
        InstructedSearch().records("val")
    with pytest.raises(ValueError, match="style 'users'"):
        InstructedSearch("users").records("train")
