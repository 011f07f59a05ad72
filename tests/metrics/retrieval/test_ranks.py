"""Golden values worked by hand, and equality with trec_eval itself on runs with ties, grades and missing queries."""

import math

import numpy as np
import pytest

from metrics.retrieval.ranking import MAP, MRR, NDCG, PairwiseMRR, Recall, Robustness
from metrics.retrieval.ranks import (
    METRICS,
    SearchResult,
    average_precision,
    find_ranks,
    group_minima,
    macro_mean,
    mrr,
    ndcg,
    pairwise_mrr,
    precision,
    prefix_group,
    recall,
    robustness,
    success,
)
from text.errors import UserError


def ranked(*documents: str) -> dict[str, float]:
    return {document: float(len(documents) - place) for place, document in enumerate(documents)}


def one(run: dict[str, float], qrels: dict[str, int]):
    return find_ranks({"q": run}, {"q": qrels})


@pytest.mark.parametrize(
    ("rank", "expected"),
    [(1, 1), (2, 0.630930), (3, 0.5), (4, 0.430677), (5, 0.386853), (8, 0.315465), (10, 0.289065), (11, 0)],
)
def test_ndcg_of_one_relevant_document(rank, expected):
    names = [f"d{i:02d}" for i in range(1, 13)]
    assert ndcg(one(ranked(*names), {f"d{rank:02d}": 1}), 10)[0] == pytest.approx(expected, abs=5e-7)


def test_ndcg_of_graded_judgements():
    run = ranked("a", "b", "c", "d", "e", "f")
    grades = {"a": 3, "b": 2, "c": 3, "d": 0, "e": 1, "f": 2}
    assert ndcg(one(run, grades), 10)[0] == pytest.approx(0.960808, abs=5e-7)
    assert ndcg(one(run, grades), 3)[0] == pytest.approx(0.977781, abs=5e-7)
    assert ndcg(one(run, {**grades, "lost": 3}), 10)[0] == pytest.approx(0.818354, abs=5e-7)
    assert ndcg(one(run, {**grades, "b": -2}), 10)[0] == ndcg(one(run, {**grades, "b": 0}), 10)[0]


def test_map_mrr_recall_precision():
    ranks = one(ranked("a", "x", "b"), {"a": 1, "b": 1, "c": 1})
    assert average_precision(ranks, 10)[0] == pytest.approx((1 + 2 / 3) / 3)
    assert recall(ranks, 10)[0] == pytest.approx(2 / 3)
    assert precision(ranks, 10)[0] == pytest.approx(0.2)
    assert success(ranks, 1)[0] == 1
    late = one(ranked(*[f"x{i}" for i in range(10)], "a"), {"a": 1})
    assert mrr(late, 10)[0] == 0
    assert mrr(late, 11)[0] == pytest.approx(1 / 11)


def test_ties_are_ordered_by_id_descending_as_strings():
    tied = {"d1": 1.0, "d2": 1.0, "d10": 1.0}
    assert [one(tied, {name: 1}).rank_J[0] for name in ("d2", "d10", "d1")] == [1, 2, 3]
    near = {"a": 1.0 + 1e-9, "b": 1.0}  # equal in float32, which is what trec_eval compares
    assert one(near, {"a": 1}).rank_J[0] == 2


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(UserError, match="query 'q' has a score that is not a number"):
        one({"a": math.nan}, {"a": 1})


def test_equals_trec_eval():
    import pytrec_eval

    rng = np.random.default_rng(0)
    names = {"ndcg": "ndcg_cut", "recall": "recall", "map": "map_cut", "precision": "P", "success": "success"}
    for _ in range(200):
        documents = [f"d{i}" for i in range(int(rng.integers(1, 40)))]
        queries = [f"q{i}" for i in range(5)]
        run = {
            query: {str(d): float(rng.integers(0, 4)) + (1e-9 if rng.random() < 0.3 else 0) for d in chosen}
            for query in queries
            if len(chosen := rng.permutation(documents)[: int(rng.integers(0, len(documents) + 1))])
        }
        qrels = {
            query: {str(d): int(rng.integers(-1, 4)) for d in rng.choice([*documents, "lost"], 4)} for query in queries
        }
        measures = {f"{name}.{k}" for name in names.values() for k in (5, 10)} | {"recip_rank"}
        oracle = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
        ranks = find_ranks(run, qrels, missing="skip")
        assert set(ranks.queries) == set(oracle)
        for k in (5, 10):
            for name, theirs in names.items():
                expected = [oracle[query][f"{theirs}_{k}"] for query in ranks.queries]
                np.testing.assert_allclose(METRICS[name](ranks, k), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            mrr(ranks, 10**6), [oracle[q]["recip_rank"] for q in ranks.queries], rtol=0, atol=1e-12
        )
        strict = find_ranks(run, qrels)
        absent = [number for number, query in enumerate(strict.queries) if query not in run]
        assert (ndcg(strict, 10)[absent] == 0).all()


def test_search_results_and_runs_give_the_same_ranks():
    rng = np.random.default_rng(1)
    documents = [f"d{i}" for i in range(30)]
    score = np.sort(rng.random((8, 10)).astype(np.float32), axis=1)[:, ::-1].copy()
    index = np.stack([rng.permutation(30)[:10] for _ in range(8)])
    index[3, 6:] = -1
    result = SearchResult([f"q{i}" for i in range(8)], documents, index, score)
    qrels = {f"q{i}": {str(d): 1 for d in rng.choice(documents, 3, replace=False)} for i in range(8)}
    dense, nested = result.ranks(qrels), find_ranks(result.run(), qrels)
    np.testing.assert_array_equal(dense.rank_J, nested.rank_J)
    assert (dense.rank_J > 0).any()
    assert len(result.run()["q3"]) == 6


def test_robustness_is_the_mean_of_the_worst():
    values, groups = np.array([1, 0.5, 0.630930, 0, 1]), list("AABBB")
    assert values.mean() == pytest.approx(0.626186)
    assert macro_mean(values, groups) == pytest.approx(0.646822, abs=5e-7)
    assert robustness(values, groups) == pytest.approx(0.25)
    assert group_minima(values, groups) == {"A": 0.5, "B": 0.0}


def queries_at(ranks: dict[str, int]):
    names = [f"d{i:02d}" for i in range(1, 20)]
    return {q: ranked(*names) for q in ranks}, {q: {f"d{rank:02d}": 1} for q, rank in ranks.items()}


def test_robustness_counts_a_missing_query_unless_told_otherwise():
    run, qrels = queries_at({"A_1": 1, "A_2": 3, "B_1": 2, "B_2": 11, "B_3": 1})
    metric, official = Robustness(k=10), Robustness(k=10, missing="skip")
    del run["B_2"]
    metric.update(run, qrels)
    official.update(run, qrels)
    assert metric.compute().item() == pytest.approx(0.25)
    assert official.compute().item() == pytest.approx(0.565465, abs=5e-7)
    assert prefix_group("alone") == "alone"
    assert prefix_group("7_x") == "7_x"


def test_torchmetrics_count_every_query_once():
    run, qrels = queries_at({"A_1": 1, "A_2": 3, "B_1": 2, "B_2": 11})
    for metric, expected in (
        (NDCG(10), (1 + 0.5 + 0.630930) / 4),
        (MRR(10), (1 + 1 / 3 + 1 / 2) / 4),
        (Recall(10), 0.75),
    ):
        metric.update(run, {q: qrels[q] for q in ("A_1", "A_2", "B_1")})
        metric.update(run, {q: qrels[q] for q in ("B_1", "B_2")})  # B_1 again, as a padded sampler would
        assert metric.compute().item() == pytest.approx(expected, abs=5e-7)
    metric = MAP(10)
    metric.update(run, qrels)
    assert metric.compute().item() == pytest.approx((1 + 1 / 3 + 1 / 2) / 4)
    metric.reset()
    metric.update(run, {"A_1": qrels["A_1"]})
    assert metric.compute().item() == 1
    grouped = Robustness(10, metric="mrr")
    grouped.update(run, qrels, groups={"A_1": "x", "A_2": "x", "B_1": "x", "B_2": "y"})
    assert grouped.compute().item() == pytest.approx((1 / 3 + 0) / 2)


def test_bad_arguments_are_named():
    with pytest.raises(UserError, match="'ndgc' is not a ranking metric"):
        Robustness(metric="ndgc")
    with pytest.raises(UserError, match="cut-off must be 1 or more"):
        NDCG(0)


def test_pairwise_mrr():
    np.testing.assert_allclose(pairwise_mrr(np.array([2, 4, 3, 1]), np.array([4, 2, 3, 10])), [0.5, -0.5, 0, 0.9])
    original = ranked(*(f"d{i}" for i in range(1, 10)))
    metric = PairwiseMRR()
    metric.update({"a": original}, {"a": ranked("d2", "d1")}, {"a": ["d2"]})  # from rank 2 to rank 1
    assert metric.compute().item() == pytest.approx(1 / 2 - 1)
    changed = ranked("d4", "d2", "d3", "d5")  # d1 falls from 1 to behind a list of 4, d4 rises from 4 to 1
    metric.update({"b": original}, {"b": changed}, {"b": ["d1", "d4"]})
    assert metric.compute().item() == pytest.approx((-0.5 + ((1 - 1 / 5) + (1 / 4 - 1)) / 2) / 2)


def test_robustness_equals_the_formula_of_mteb():
    """Their rule, written out: group by the id before the underscore, minimum of nDCG@10, mean."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        run, qrels = queries_at(
            {f"{g}_{i}": int(rng.integers(1, 15)) for g in range(6) for i in range(1, int(rng.integers(2, 6)))}
        )
        by_query: dict[str, list[float]] = {}
        for query, judged in qrels.items():
            rank = int(next(iter(judged)).removeprefix("d"))
            by_query.setdefault(query.split("_")[0], []).append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
        metric = Robustness(10)
        metric.update(run, qrels)
        assert metric.compute().item() == pytest.approx(np.mean([min(v) for v in by_query.values()]), abs=1e-12)
