"""Scores by rubric and the classes of ties, worked by hand; the same over batches in any order."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from metrics.benches.multifaceted import MultifacetedScore, TieWinRate, compare, instance_score
from text.errors import UserError


def test_the_score_of_an_instance():
    assert instance_score([[5, 4, 3, 4]]) == 4
    assert instance_score([[2, 2, None, 5]]) == 3
    assert instance_score([[5, None], [3, 1], [None, None]]) == 2.5  # rubric means 4 and 1
    assert instance_score([[None], [None]]) is None
    assert instance_score([]) is None


def score(*batches, sources=("A", "B")):
    metric = MultifacetedScore(sources)
    for scores, names in batches:
        metric.update(scores, names)
    return metric.compute()


def test_instances_and_sources_weigh_differently():
    """Acceptance 2 and 15."""
    two = score(([4.0, 3.0], ["A", "B"]))
    assert (two["score"], two["macro"]) == (3.5, 3.5)
    three = score(([4.0], ["A"]), ([3.0, 5.0], ["B", "A"]))
    assert (three["score"], three["macro"]) == (4.0, 3.75)
    assert (three["score/A"], three["score/B"]) == (4.5, 3.0)
    unequal = score(([5.0, 5.0, 5.0, 1.0], ["A", "A", "A", "B"]))
    assert (unequal["score"], unequal["macro"]) == (4.0, 3.0)


def test_what_has_no_score_is_counted_and_left_out():
    found = score(([4.0, None, 3.0], ["A", "A", "B"]), ([None], ["B"]))
    assert (found["score"], found["instances"], found["excluded"]) == (3.5, 2, 2)
    assert math.isnan(score(([None], ["A"]))["score"])
    assert score(([4.0], None), sources=("",)) == {"score": 4.0, "macro": 4.0, "instances": 1, "excluded": 0}
    with pytest.raises(UserError, match="source 'C' is none of A, B"):
        score(([4.0], ["C"]))


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ((4.5, 4.25), "win"),
        ((1.0, 4.25), "loss"),
        ((4.0, 4.0), "tie_good"),
        ((3.9, 3.9), "tie_bad"),
        ((None, 4.0), None),
        ((4.0, None), None),
    ],
)
def test_outcomes(scores, outcome):
    assert compare(*scores) == outcome


def test_near_scores_may_count_as_ties():
    assert compare(4.2, 4.0, tie_eps=0.25) == "tie_good"
    assert compare(4.2, 3.9, tie_eps=0.25) == "win"
    assert compare(4.1, 3.9, tie_eps=0.25) == "tie_bad"  # both must be good
    assert compare(3.0, 3.0, good_threshold=3.0) == "tie_good"


def float_mean(runs):
    means = [sum(scores) / len(scores) for scores in zip(*runs, strict=True)]
    return sum(means) / len(means)


def test_equal_means_tie():
    """Every pair of instances of three rubrics and three runs whose means are the same number."""
    rng = random.Random(0)
    drawn = [[[rng.randint(1, 5) for _ in range(3)] for _ in range(3)] for _ in range(300)]
    total = {id(runs): sum(map(sum, runs)) for runs in drawn}
    missed_by_floats = 0
    for one, other in combinations(drawn, 2):
        outcome = compare(instance_score(one), instance_score(other))
        if total[id(one)] == total[id(other)]:
            assert outcome == ("tie_good" if total[id(one)] >= 36 else "tie_bad")
            missed_by_floats += float_mean(one) != float_mean(other)
        else:
            assert outcome == ("win" if total[id(one)] > total[id(other)] else "loss")
    assert missed_by_floats > 500, "what sums of floats would have called wins and losses"


def test_scores_that_others_averaged_in_floats_tie_too():
    assert compare(3.9999999999999996, 4.0) == "tie_good"
    assert compare(11 / 3, (1 + 2 / 3) + 2) == "tie_bad"
    assert compare(4.2, 4.0, tie_eps=0.2) == "tie_good", "they differ by 0.2, though their floats differ by more"
    assert compare(4.0, 3.999) == "win"
    assert instance_score([[4, 4, 3], [3, 5, 5]]) == 4.0


COUNTS = {"win": 368, "loss": 124, "tie_good": 384, "tie_bad": 124, None: 3}
OUTCOMES = [outcome for outcome, count in COUNTS.items() for _ in range(count)]


def test_ties_of_the_paper():
    """Acceptance 1: figure 3, against Mistral 7B Instruct v0.2."""
    metric = TieWinRate(resamples=10)
    metric.update(OUTCOMES)
    found = metric.compute()
    assert (found["win_rate"], found["tie_win_rate"], found["tie_win_rate_all"]) == (0.368, 0.752, 0.876)
    assert (found["n"], found["nulls"]) == (1000, 3)
    assert [found[name] for name in ("wins", "losses", "ties_good", "ties_bad")] == [368, 124, 384, 124]


def test_the_error_is_that_of_a_share_and_grows_with_clusters():
    metric = TieWinRate(resamples=2000)
    metric.update(OUTCOMES)
    exact = math.sqrt(0.752 * 0.248 / 1000)
    assert metric.compute()["se"] == pytest.approx(exact, rel=0.07)  # 4 standard errors of 2000 resamples
    alike = TieWinRate(resamples=2000)
    alike.update(
        [outcome for outcome in OUTCOMES for _ in range(4)], [n for n in range(len(OUTCOMES)) for _ in range(4)]
    )
    assert alike.compute()["se"] == pytest.approx(metric.compute()["se"], rel=0.1)  # four copies tell nothing new


def test_batches_and_their_order_do_not_matter():
    whole, parts = TieWinRate(), TieWinRate()
    clusters = [number // 3 for number in range(len(OUTCOMES))]
    whole.update(OUTCOMES, clusters)
    for start in range(900, -1, -300):  # 1003 in all: the last part first
        parts.update(OUTCOMES[start : start + 300], clusters[start : start + 300])
    assert whole.compute() == parts.compute()


def test_no_outcome_is_no_rate():
    metric = TieWinRate()
    metric.update([None, None])
    found = metric.compute()
    assert (found["n"], found["nulls"]) == (0, 2)
    assert all(math.isnan(found[name]) for name in ("win_rate", "tie_win_rate", "tie_win_rate_all", "se"))
