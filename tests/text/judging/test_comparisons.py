"""Records of comparisons: the official ranking of UltraFeedback by hand, reasons of both answers, and bad fields."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from text.judging.comparisons import ComparedDialogue, ComparedPair, RatedAnswers


def rated(*completions, **more):
    return RatedAnswers.model_validate({"instruction": "say", "completions": [*completions]} | more)


def answer(text, why=(), **ratings):
    return {"response": text, "ratings": ratings, "rationales": dict(why)}


def test_ultrafeedback_is_read_as_it_is():
    """Spec 10.13: [5, N/A, 4, 3] has the mean 4; an answer without any rating is no answer, and no NaN."""
    notes = {
        "helpfulness": {"Rating": "5", "Rationale": "Good.", "Rationale For Rating": "Very."},
        "honesty": {"Rating": "N/A", "Rationale": "None."},
        "instruction_following": {"Rating": "4"},
        "truthfulness": {"Rating": "3"},
    }
    official = {"response": "hi", "custom_system_prompt": "Be kind.", "annotations": notes, "model": "m"}
    bare = {"response": "ho", "annotations": {"helpfulness": {"Rating": "N/A"}}}
    [one] = rated(official, bare).ranked()
    assert (one.mean, one.system, one.rationales["helpfulness"]) == (4.0, "Be kind.", "Good.\nVery.")
    assert rated(bare).ranked() == []
    with pytest.raises(ValidationError, match=r"annotations\.honesty: should be a number or 'N/A', not 'five'"):
        rated({"response": "hi", "annotations": {"honesty": {"Rating": "five"}}})


def test_ties_go_to_the_longer_answer_officially():
    short, long, worse = answer("a" * 10, h=4), answer("b" * 20, h=5, t=3), answer("c", h=1)
    record = rated(short, worse, long)
    assert [len(one.response) for one in record.ranked("length")] == [20, 10, 1]
    assert [one.response for one in record.ranked("drop")] == ["c"]
    drawn = {rated(short, worse, long, id=str(n)).ranked()[0].response[0] for n in range(20)}
    assert drawn == {"a", "b"}
    assert [record.ranked()] * 3 == [record.ranked() for _ in range(3)]


def test_the_best_meets_one_that_is_strictly_worse():
    record = rated(answer("best", h=5), answer("equal", h=5), answer("low", h=2), answer("lower", h=1))
    met = {record.best_and_worse(record.ranked("length"), seed)[0].rejected for seed in range(30)}
    assert met == {"low", "lower"}
    assert rated(answer("one", h=5), answer("two", h=5)).best_and_worse(record.ranked("length")[:2]) == []


def test_each_principle_has_its_first_strict_comparison_with_reasons_of_both():
    """The first answer by rank is no better by "t" than any: the second supplies it; "Text" is not a reason."""
    one = answer("one", {"h": "h1", "t": "t1"}, h=5, t=3)
    two = answer("two", {"h": "h2", "t": "t2"}, h=3, t=4)
    three = answer("three", {"h": "like Text 1", "t": "t3"}, h=2, t=3)
    record = rated(one, two, three)
    found = record.by_principle(record.ranked("length"), ["h", "t", "unknown"])
    assert next((c.principle, c.chosen, c.rejected) for c in found) == ("h", "one", "two")
    assert found[1].principle == "t"
    assert found[1].chosen == "two"
    assert found[1].rejected in ("one", "three")
    assert (found[0].rationale_chosen, found[0].rationale_rejected) == ("h1", "h2")
    assert len(found) == 2


def test_pairs_bring_reasons_for_both_answers_or_none():
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    [found] = ComparedPair.model_validate(pair | {"principle": "h", "source": "s"}).comparisons()
    assert found == ("h", "a", "b", None, None)
    with pytest.raises(ValidationError, match="'rationale_chosen' is there: give the reasons for both"):
        ComparedPair.model_validate(pair | {"rationale_chosen": "since"})
    with pytest.raises(ValidationError, match="use_for"):
        ComparedPair.model_validate(pair | {"use_for": ["train"]})


def test_dialogues_are_read_turn_by_turn():
    told = {
        "chosen": "\n\nHuman: hi\n\nAssistant: yes, Human: no\n\nHuman: why\n\nAssistant: so",
        "rejected": "\n\nHuman: hi\n\nAssistant: yes, Human: no\n\nHuman: why\n\nAssistant: no",
    }
    record = ComparedDialogue.model_validate(told)
    assert [turn.content for turn in record.prompt] == ["hi", "yes, Human: no", "why"]
    assert record.comparisons()[0][:3] == ("overall", "so", "no")
