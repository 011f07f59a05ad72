"""The world keeps its promises: right scores, noise, tests that are never trained, models of known strength."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from worlds import RubricWorld
from worlds.rubrics import Wanted, right_score, score_by_rubric

WORLD = RubricWorld(trained=600, held_out=30)


def wanted(row: dict) -> tuple[str, ...]:
    words = row["score_rubric"]["criteria"].split()
    return words[1], words[2], words[4]


@pytest.mark.parametrize(
    ("said", "score"), [("s9", 1), ("s9 s3", 1), ("s1", 3), ("s1 s3", 2), ("s2 s1", 5), ("s3 s1 s2 s2", 4)]
)
def test_right_scores_worked_by_hand(said, score):
    assert right_score(said.split(), Wanted(("s1", "s2"), "s3")) == score
    request = SimpleNamespace(rubric=SimpleNamespace(criteria="want s1 s2 avoid s3"))
    assert score_by_rubric(request, said) == score
    for vague in ("good", "want s1 s2 s3 s4"):
        assert score_by_rubric(SimpleNamespace(rubric=SimpleNamespace(criteria=vague)), said) is None


def test_records_are_the_same_every_time_and_of_the_right_number():
    for split, count in (("train", 600), ("val", 30), ("test", 480), ("responses", 480), ("results", 1440)):
        assert len(WORLD.records(split)) == count
    assert WORLD.records("results") == RubricWorld(trained=600, held_out=30).records("results")
    assert WORLD.records("test") != RubricWorld(seed=1).records("test")


def test_what_is_tested_is_never_trained():
    tested = {wanted(row) for row in WORLD.records("test")}
    trained = {
        tuple(record["rubric"]["criteria"].split()[n] for n in (1, 2, 4))
        for record in RubricWorld(trained=3000).records("train")
        if "avoid" in record["rubric"]["criteria"]
    }
    assert not tested & trained
    assert {symbol for combination in tested for symbol in combination} <= {
        symbol for combination in trained for symbol in combination
    }


def test_rubrics_differ_in_what_they_say_alone():
    instance, domain, coarse = (RubricWorld(granularity=g).records("results") for g in ("instance", "domain", "coarse"))
    assert [row["response"] for row in instance] == [row["response"] for row in coarse]
    assert len({row["score_rubric"]["criteria"] for row in domain}) == 12
    assert {row["score_rubric"]["criteria"] for row in coarse} == {"good"}
    kinds = Counter(record["rubric"]["criteria"].split()[0] for record in WORLD.records("train"))
    assert kinds["good"] == 200
    assert kinds["want"] == 400


def test_models_are_as_strong_as_they_are_said_to_be():
    rows = WORLD.records("results")
    means = {
        (model, capability): np.mean(
            [row["gold_score"] for row in rows if (row["model_name"], row["capability"]) == (model, capability)]
        )
        for model in ("good", "middle", "weak")
        for capability in ("c0", "c1", "c2")
    }
    assert min(means["good", c] for c in ("c0", "c1", "c2")) > max(means["middle", c] for c in ("c0", "c1")) + 0.5
    assert means["middle", "c2"] < min(means["middle", "c0"], means["middle", "c1"]) - 0.5
    off = Counter(row["human_score"] - row["gold_score"] for row in rows if 1 < row["gold_score"] < 5)
    assert set(off) == {-1, 0, 1}
    assert off[0] / sum(off.values()) == pytest.approx(0.7, abs=0.06)
    scores = {row["id"]: row["score"] for row in WORLD.records("scores")}
    assert scores == {row["id"]: row["human_score"] for row in rows if row["model_name"] == "middle"}


def test_as_text_a_judge_is_asked_as_it_is_taught():
    taught = RubricWorld(trained=3, as_text=True).records("train")
    parts = RubricWorld(trained=3).records("train")
    assert [set(record) for record in taught] == [{"id", "prompt", "output"}] * 3
    for record, part in zip(taught, parts, strict=True):
        assert record["prompt"] == f"{part['instruction']} | {part['response']} | {part['rubric']['criteria']} :"
        assert record["output"] == f"{part['feedback']} [RESULT] {part['score']}"


@pytest.mark.parametrize("changes", [{"granularity": "fine"}, {"model": "best"}, {"instances": 0}])
def test_worlds_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        RubricWorld(**changes).records("test")
    with pytest.raises(ValueError, match="splits train"):
        WORLD.records("dev")
