"""Two symbols in turn: quality by hand, labels that tell it but for flips, and prompts that are held out."""

from __future__ import annotations

import pytest

from worlds import Alternating
from worlds.alternating import quality


@pytest.mark.parametrize(
    ("answer", "value"),
    [("a b a b", 4), ("a a b b", 2), ("a b x a b", 3), ("x x", 0), ("", 0), ("a b a b a b a b a b", 8)],
)
def test_quality_by_hand(answer, value):
    assert quality("Q a b", answer) == value


def test_labels_tell_the_quality_but_for_flips():
    world = Alternating(pairs=2000, judged=50, seed=3)
    leads = [quality(r["prompt"], r["chosen"]) - quality(r["prompt"], r["rejected"]) for r in world.records("train")]
    assert 0 not in leads
    assert sum(lead < 0 for lead in leads) / 2000 == pytest.approx(0.1, abs=0.03)
    assert all(
        quality(r["prompt"], r["chosen"]) > quality(r["prompt"], r["rejected"])
        for split in ("val", "test")
        for r in world.records(split)
    )
    mean = sum(quality(r["prompt"], r[side]) for r in world.records("train") for side in ("chosen", "rejected")) / 4000
    assert 1 < mean < 2  # far from the 8 of the best answers


def test_skilful_answers_differ_by_what_they_repeat():
    """With a skill of 1 pairs are met whose answers hold no other symbol; their qualities differ all the same."""
    worlds = [Alternating(pairs=2000, flips=0, seed=3, skill=skill) for skill in (0.8, 1.0)]

    def alike(record):
        wanted = record["prompt"].split()[1:]
        return all(word in wanted for side in ("chosen", "rejected") for word in record[side].split())

    few, many = (sum(map(alike, world.records("train"))) for world in worlds)
    assert few < many / 2
    with pytest.raises(ValueError, match=r"skill is 1\.2"):
        Alternating(skill=1.2).records("train")


def test_held_out_prompts_are_never_trained_on():
    pairs, prompts = Alternating(pairs=3000, seed=3), Alternating(kind="prompts", seed=3)
    held_out = {one["prompt"] for one in prompts.records("test")}
    trained = {one["prompt"] for one in prompts.records("train")}
    met = {one["prompt"] for split in ("train", "val", "test") for one in pairs.records(split)}
    assert (len(held_out), len(trained)) == (12, 120)
    assert not held_out & (trained | met)


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"flips": 2.0}, {"held_out": 132}])
def test_worlds_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="held_out below 132"):
        Alternating(**wrong).records("train")
    with pytest.raises(ValueError, match="not 'dev'"):
        Alternating().records("dev")
