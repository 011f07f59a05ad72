"""The instruction-blind ceiling against its closed forms and against chance, and how siblings are compared."""

import math

import numpy as np
import pytest

from metrics.retrieval.instruction_following import blind_ceiling, sibling_scores
from metrics.retrieval.ranks import SearchResult, find_ranks, ndcg, robustness

FULL = {6: 239, 7: 309, 8: 302, 9: 277, 10: 140}
HALF = {6: 107, 7: 149, 8: 151, 9: 155, 10: 69}


def benchmark(sizes: dict[int, int]):
    pairs = [(f"{g}.{n}", f"{g}.{n}.{i}", g) for g, count in sizes.items() for n in range(count) for i in range(g)]
    return [frozenset([target]) for _, target, _ in pairs], [g for *_, g in pairs], [group for group, *_ in pairs]


@pytest.mark.parametrize(
    ("g", "mean", "worst"),
    [
        (6, 0.550778, 0.356207),
        (7, 0.519714, 1 / 3),
        (8, 0.494183, 0.315465),
        (9, 0.472722, 0.301030),
        (10, 0.454356, 0.289065),
    ],
)
def test_blind_ceiling_of_one_group(g, mean, worst):
    ceiling = blind_ceiling(*benchmark({g: 1}))
    assert (ceiling.ndcg, ceiling.robustness) == (pytest.approx(mean, abs=5e-7), pytest.approx(worst, abs=5e-7))


def test_blind_ceiling_of_the_benchmark():
    full, half = blind_ceiling(*benchmark(FULL)), blind_ceiling(*benchmark(HALF))
    assert full.ndcg == pytest.approx(0.496921, abs=5e-7)
    assert full.macro_ndcg == pytest.approx(0.501993, abs=5e-7)
    assert full.robustness == pytest.approx(0.321435, abs=5e-7)
    assert (half.ndcg, half.robustness) == (pytest.approx(0.495297, abs=5e-7), pytest.approx(0.320160, abs=5e-7))


@pytest.mark.parametrize("relevant", [[{0}], [{0}, {2}, {5}], [{0, 1, 4}], [{0}, {0}]])
def test_blind_ceiling_is_what_chance_gives(relevant):
    """One random order of the topic's seven documents for all of the group's queries, many times over."""
    rng, names = np.random.default_rng(0), [f"d{i}" for i in range(7)]
    qrels = {f"q{i}": {names[d]: 1 for d in own} for i, own in enumerate(relevant)}
    draws = []
    for _ in range(4000):
        order = dict(zip(rng.permutation(names).tolist(), np.arange(7.0).tolist(), strict=True))
        values = ndcg(find_ranks(dict.fromkeys(qrels, order), qrels), 10)
        draws.append((values.mean(), robustness(values, ["g"] * len(values))))
    sets = [frozenset(names[d] for d in own) for own in relevant]
    ceiling = blind_ceiling(sets, [7] * len(sets), ["g"] * len(sets))
    error = np.std(draws, axis=0) / math.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - [ceiling.ndcg, ceiling.robustness]) < 4 * error + 1e-12).all()


def test_several_sets_of_several_targets_have_no_closed_form():
    sets = [frozenset("ab"), frozenset("bc")]
    assert math.isnan(blind_ceiling(sets, [4, 4], ["g", "g"]).robustness)


def test_siblings():
    documents = ["x", "y", "z", "other"]
    index = np.array([[0, 1, 2], [0, 1, 3], [2, 0, 1]])
    result = SearchResult(["t_1", "t_2", "t_3"], documents, index, np.zeros((3, 3), np.float32))
    own = [frozenset("x"), frozenset("y"), frozenset("z")]
    scores = sibling_scores(result, own, [frozenset("xyz")] * 3, ["t"] * 3)
    assert scores.accuracy == pytest.approx(2 / 3)  # t_2 has x before y
    # ranks of x: 1, 1, 2; of y: 2, 2, 3; of z: 3, 4 (behind), 1
    falls = [(0 + (1 - 1 / 2)) / 2, (0 + (1 - 2 / 3)) / 2, ((1 - 1 / 3) + (1 - 1 / 4)) / 2]
    assert scores.pmrr == pytest.approx(np.mean(falls))
    assert scores.churn == pytest.approx(1 - (2 / 4 + 3 / 3 + 2 / 4) / 3)


def test_a_task_without_siblings_has_nothing_to_compare():
    own = [frozenset("x"), frozenset("y")]
    result = SearchResult(["a", "b"], ["x", "y"], np.array([[0], [1]]), np.zeros((2, 1), np.float32))
    scores = sibling_scores(result, own, own, ["a", "b"])
    assert math.isnan(scores.accuracy)
    assert math.isnan(scores.pmrr)
    assert math.isnan(scores.churn)
