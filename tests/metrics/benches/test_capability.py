"""Means by capability and task, worked by hand and on the shared half of the bench with scores made of checksums."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch

from metrics.benches.capability import (
    CapabilityScore,
    aggregate,
    delta,
    intervals,
    length_bias,
    rank_agreement,
    self_consistent,
)
from metrics.judging import krippendorff_alpha
from tests.shared_data import biggen_instances
from text.errors import UserError


def record(capability: str, score, task: str = "t", **more):
    return {"capability": capability, "task": task, "score": score, **more}


WORKED = [record("planning", 5), record("planning", 3), record("planning", None), record("safety", 2, "u")]


def made_up(judge: str, run: int, name: str) -> int | None:
    h = zlib.crc32(f"{judge}|{run}|{name}".encode())
    return None if h % 97 == 0 else 1 + h // 97 % 5


def human(name: str) -> int:
    said = made_up("judgeA", 0, name)
    return min(5, max(1, (3 if said is None else said) + zlib.crc32(f"human|{name}".encode()) % 3 - 1))


@pytest.fixture(scope="module")
def half() -> list[dict]:
    return [one | {"score": made_up("judgeA", 0, one["id"])} for one in biggen_instances()]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_means_worked_by_hand():
    found = aggregate(WORKED)
    assert found["per_capability"] == {"planning": 4.0, "safety": 2.0}
    assert (found["macro"], found["coverage"], found["parse_failure_rate"]) == (3.0, 0.75, 0.25)
    assert found["micro"] == pytest.approx(10 / 3)
    assert found["per_task"] == {"planning/t": 4.0, "safety/u": 2.0}
    lowest = aggregate(WORKED, impute="1")
    assert (lowest["per_capability"]["planning"], lowest["macro"], lowest["micro"]) == (3.0, 2.5, 2.75)
    assert lowest["coverage"] == 0.75  # what is imputed was not read


def test_what_was_not_judged_is_no_parse_failure():
    found = aggregate([*WORKED, {"capability": "safety", "task": "u"}], impute="1")
    assert (found["absent"], found["coverage"], found["parse_failure_rate"]) == (1, 3 / 5, 1 / 4)
    assert found["per_capability"]["safety"] == 2.0
    nothing = aggregate([{"capability": "safety", "task": "u"}])
    assert nothing["per_capability"] == {}
    assert math.isnan(nothing["macro"])
    assert math.isnan(nothing["parse_failure_rate"])


@pytest.mark.parametrize(
    ("ratings", "mean", "majority", "median"),
    [([4, 4, 2, None, 5], 3.75, 4, 4), ([1, 1, 5, 5, 3], 3.0, 1, 3), ([None] * 5, None, None, None), ([2], 2, 2, 2)],
)
def test_self_consistency(ratings, mean, majority, median):
    found = [self_consistent(ratings, how) for how in ("mean", "majority", "median")]
    assert found == [mean, majority, median]


def test_a_bad_option_is_refused():
    with pytest.raises(UserError, match="impute"):
        aggregate(WORKED, impute="2")
    with pytest.raises(UserError, match="subset"):
        aggregate(WORKED, subset="french")


# --- intervals --------------------------------------------------------------------------------------------------------


def test_intervals_are_around_the_means_and_follow_theory():
    rng = np.random.default_rng(0)
    records = [
        record(c, float(rng.normal(3, 1)), t) for c, n in (("a", 40), ("b", 160)) for t in "uvwx" for _ in range(n)
    ]
    found, means = intervals(records), aggregate(records)
    assert found["macro"].mean == pytest.approx(means["macro"])
    assert found["micro"].mean == pytest.approx(means["micro"])
    assert found["task_macro"].mean == pytest.approx(means["task_macro"])
    assert found["a"].mean == pytest.approx(means["per_capability"]["a"])
    assert found["b/w"].mean == pytest.approx(means["per_task"]["b/w"])
    assert (found["a"].n, found["macro"].n, found["b/w"].n) == (160, 800, 160)
    widths = {name: interval.high - interval.low for name, interval in found.items()}
    assert widths["a"] == pytest.approx(2 * 1.98 / np.sqrt(160), rel=0.12)  # unit variance within tasks
    assert widths["macro"] == pytest.approx(1.97 * np.sqrt(1 / 160 + 1 / 640), rel=0.12)
    assert all(interval.low < interval.mean < interval.high for interval in found.values())
    assert intervals(records) == found


def test_what_lies_between_tasks_is_no_width():
    """Tasks are part of the bench: an easy and a hard one make no interval."""
    found = intervals([record("a", 5, "easy")] * 9 + [record("a", 1, "hard")] * 9)
    assert (found["a"].low, found["a"].mean, found["a"].high) == pytest.approx((3, 3, 3))
    assert intervals([record("a", None)]) == {}


def test_an_instance_that_is_alone_in_its_task_has_a_spread_all_the_same():
    alone = intervals([record("a", score, f"t{task}") for task, score in enumerate([3, 4, 3, 4, 3])])
    half = 2.776445 * math.sqrt(0.3 / 5)  # five values of one stratum: t(4) x sd / sqrt 5
    assert (alone["a"].low, alone["a"].high) == pytest.approx((3.4 - half, 3.4 + half), abs=1e-5)
    assert math.isnan(alone["a/t1"].low)
    assert alone["a/t1"].n == 1
    mixed = [record("a", score, "many") for score in (3, 4, 5)] + [record("a", 1, "one"), record("b", 5)]
    found = intervals(mixed)
    assert found["a"].high - found["a"].low > 0.99 * (found["a/many"].high - found["a/many"].low) * 3 / 4
    assert math.isnan(found["b"].low), "nothing tells how b spreads"
    assert found["macro"].low < found["a"].low / 2 + 2.5, "and in the macro mean it has the spread of the others"
    assert found["macro"].n == 5


def test_two_models_are_compared_on_what_both_have():
    mine = [record("a", score, id=str(n)) for n, score in enumerate([5, 4, 3, None, 2])]
    theirs = [record("a", score, id=str(n)) for n, score in enumerate([4, 4, 4, 5])] + [record("b", 1, id="other")]
    found = delta(mine, theirs)
    assert (found["wins"], found["ties"], found["losses"], found["n"]) == (1, 1, 1, 3)
    assert found["intervals"]["macro"].mean == 0.0
    assert found["intervals"]["a"].low < 0 < found["intervals"]["a"].high
    same = delta(mine, mine)
    assert (same["ties"], same["intervals"]["macro"].high) == (4, 0.0)
    with pytest.raises(UserError, match="no instance"):
        delta(mine, theirs[-1:])


def test_equal_means_are_equal_however_they_came_about():
    """Panel means of thirds: as floats 11/3 and 13/3 average to 3.9999999999999996."""
    thirds = [self_consistent([self_consistent([3, 4, 4]), self_consistent([4, 4, 5])])]
    assert thirds == [4.0]
    mine = [record("a", 11 / 3 + 13 / 3 - 4, id="x"), record("a", (0.1 + 0.2) * 10, id="y")]
    theirs = [record("a", 4, id="x"), record("a", 3, id="y")]
    assert (found := delta(mine, theirs))["ties"] == 2
    assert (found["wins"], found["losses"], found["intervals"]["a"].high) == (0, 0, 0.0)
    # two models with the same capability means in another order have the same macro score, and tie in rank
    scores = {"m": [[1, 2], [1, 1, 2], [5, 4, 5, 4, 4, 4, 4]], "n": [[5, 4, 5, 4, 4, 4, 4], [1, 2], [1, 1, 2]]}
    macro = {
        model: aggregate([record(f"c{n}", score) for n, of in enumerate(given) for score in of])["macro"]
        for model, given in scores.items()
    }
    assert macro["m"] == macro["n"]


def test_length_and_ranks():
    said = [record("a", score, response="x" * score) for score in (1, 2, 5)]
    said += [record("b", score, response="x" * (9 - score)) for score in (1, 2, 5)] + [record("b", None, response="x")]
    found = length_bias(said)
    assert found["a"] == pytest.approx(1)
    assert found["b"] == pytest.approx(-1)
    assert -1 < found[""] < 1
    assert math.isnan(length_bias([record("a", 1, response="x")])["a"])
    assert rank_agreement({"m": 1, "n": 2, "o": 3}, {"m": 2, "n": 4, "o": 3, "p": 9}) == pytest.approx(1 / 3)
    assert math.isnan(rank_agreement({"m": 1}, {"m": 2}))


# --- the metric -------------------------------------------------------------------------------------------------------


def test_the_metric_counts_an_instance_once_and_says_what_the_function_says(half):
    whole = CapabilityScore()
    whole.update([one["id"] for one in half], [one["score"] for one in half])
    first, second = CapabilityScore(), CapabilityScore()  # two ranks; the sampler padded the second
    for metric, part in ((first, half[::2]), (second, [*half[1::2], half[0]])):
        metric.update([one["id"] for one in part], [one["score"] for one in part])
    first.keys += second.keys
    first.places += second.places
    first.scores += second.scores
    assert first.compute() == pytest.approx(whole.compute())
    wanted = aggregate(half)
    assert whole.compute()["macro"] == pytest.approx(wanted["macro"])
    assert whole.compute()["multilingual"] == pytest.approx(wanted["per_capability"]["multilingual"])


def test_the_metric_takes_other_capabilities_and_refuses_unknown_ones():
    metric = CapabilityScore(["c", "c_long"])
    metric.update(["c_long_task_0", "c_x_0"], [1, 5])
    assert metric.compute() == {
        "macro": 3.0,
        "micro": 3.0,
        "coverage": 1.0,
        "parse_failure_rate": 0.0,
        "c": 5.0,
        "c_long": 1.0,
    }
    with pytest.raises(UserError, match="'d_x_0' begins with none"):
        metric.update(["d_x_0"], [1])
    assert math.isnan(CapabilityScore().compute()["macro"])


# --- the shared half --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subset", "parsed", "null", "macro", "micro", "task_macro"),
    [
        ("all", 379, 5, 2.9436, 2.9657, 2.9662),
        ("english", 345, 4, 3.0027, 3.0145, 3.0171),
        ("english+without_judge_tasks", 337, 3, 2.9961, 3.0089, 3.0103),
    ],
)
def test_means_of_the_shared_half(half, subset, parsed, null, macro, micro, task_macro):
    found = aggregate(half, subset)
    assert (found["parsed"], found["null"]) == (parsed, null)
    assert [found[name] for name in ("macro", "micro", "task_macro")] == pytest.approx(
        [macro, micro, task_macro], abs=5e-5
    )


def test_capabilities_and_tasks_of_the_shared_half(half):
    found = aggregate(half)
    wanted = {
        "grounding": (2.8400, 50),
        "instruction_following": (3.1800, 50),
        "planning": (3.1143, 35),
        "reasoning": (3.3400, 50),
        "refinement": (3.0526, 38),
        "safety": (3.0769, 39),
        "theory_of_mind": (2.8750, 48),
        "tool_usage": (2.5429, 35),
        "multilingual": (2.4706, 34),
    }
    assert found["per_capability"] == pytest.approx({name: mean for name, (mean, _) in wanted.items()}, abs=5e-5)
    assert found["n_per_capability"] == {name: n for name, (_, n) in wanted.items()}
    tasks = {
        "planning/travel_plan": (3.8, 5),
        "refinement/llm_judge_relative": (3.0, 4),
        "safety/safety_alignment": (3.0, 5),
        "multilingual/poem_writing": (2.0, 5),
    }
    assert {name: found["per_task"][name] for name in tasks} == pytest.approx({n: m for n, (m, _) in tasks.items()})
    assert {name: found["n_per_task"][name] for name in tasks} == {name: n for name, (_, n) in tasks.items()}
    without = aggregate(half, "without_judge_tasks")
    assert (without["per_capability"]["refinement"], without["n_per_capability"]["refinement"]) == (3.0, 30)
    scores = {one["id"]: one["score"] for one in half}
    assert [scores[f"planning_travel_plan_{n}"] for n in (0, 2, 4)] == [4, 5, 2]
    assert [human(f"planning_travel_plan_{n}") for n in (0, 2, 4)] == [4, 5, 3]
    assert {name for name, score in scores.items() if score is None} == {
        "theory_of_mind_interplanetary_diplomacy_4",
        "theory_of_mind_faux_pas_explanation_8",
        "multilingual_cultural_awareness_2",
        "refinement_llm_judge_absolute_4",
        "safety_moral_belief_4",
    }


def test_self_consistency_on_the_shared_half():
    runs = [(one, [made_up("judgeA", run, one["id"]) for run in range(5)]) for one in biggen_instances()]
    for how, macro, micro in (("mean", 2.9465, 2.9493), ("majority", 2.6612, 2.6619)):
        found = aggregate([one | {"score": self_consistent(ratings, how)} for one, ratings in runs], "english")
        assert (found["macro"], found["micro"]) == pytest.approx((macro, micro), abs=5e-5)
        assert found["null"] == 0
    english = [ratings for one, ratings in runs if one["capability"] != "multilingual"]
    table = torch.tensor([[math.nan if r is None else float(r) for r in row] for row in zip(*english, strict=True)])
    assert float(krippendorff_alpha(table, "ordinal")) == pytest.approx(0.0082, abs=5e-5)
