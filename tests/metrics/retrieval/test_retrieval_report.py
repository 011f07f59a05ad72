"""The report of a search: scores, rows, ceilings and files, and passages that are their own query."""

import json

import numpy as np
import pytest

from metrics.retrieval.found_passages import trec_lines, without_itself
from metrics.retrieval.ranks import SearchResult
from metrics.retrieval.retrieval_report import judge, nested_results, table, write_report
from text.retrieval.tasks import Passage, Query, RetrievalTask

PASSAGES = tuple(Passage(name, "", name) for name in ("a", "b", "c", "q2"))
QUERIES = (Query("q1", "x", "i", "t", "t"), Query("q2", "x", "j", "t", "t"), Query("q3", "y", None, "u", "u"))
TASK = RetrievalTask("task", QUERIES, PASSAGES, {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1, "a": -1}})


def result(*rows: list[int]) -> SearchResult:
    index = np.asarray(rows)
    score = np.where(index >= 0, 1 / np.arange(1, index.shape[1] + 1, dtype=np.float32), 0).astype(np.float32)
    return SearchResult(["q1", "q2", "q3"], ["a", "b", "c", "q2"], index, score)


def test_scores_rows_and_ceilings():
    report = judge(TASK, result([0, 1, 2], [0, 1, 2], [1, 0, -1]), 3, resamples=200)
    scores = report.scores
    assert scores["ndcg@10"] == pytest.approx((1 + 0.630930 + 0) / 3, abs=1e-6)
    assert scores["robustness@10"] == pytest.approx((0.630930 + 0) / 2, abs=1e-6)
    assert scores["mrr@10"] == pytest.approx((1 + 1 / 2) / 3)
    assert scores["recall@100"] == pytest.approx(2 / 3)
    assert scores["blind_ceiling"]["robustness@10"] == pytest.approx((1 / np.log2(3) + 1) / 2)
    assert scores["sibling_accuracy"] == 0.5  # of two queries that have a sibling; q3 has none
    assert scores["instruction_gain"] == pytest.approx(scores["ndcg@10"] - scores["blind_ceiling"]["ndcg@10"])
    low, high = scores["interval"]["ndcg@10"]
    assert low == 0
    assert high == 1  # two topics tell next to nothing, but nothing exceeds the scale
    assert [row["first_relevant_rank"] for row in report.rows] == [1, 2, None]
    assert [row["group"] for row in report.rows] == ["t", "t", "u"]


def test_a_passage_is_not_the_answer_to_itself():
    found = result([3, 0, 1], [3, 1, 0], [2, 3, -1])
    cleaned = without_itself(found, {"q2"}, 2)
    assert cleaned.index_QK.tolist() == [[3, 0], [1, 0], [2, 3]]
    assert cleaned.score_QK[1, 0] == pytest.approx(1 / 2)
    assert without_itself(found, {"q2"}, 3).index_QK[1].tolist() == [1, 0, -1]
    untouched = without_itself(found, frozenset(), 3)
    np.testing.assert_array_equal(untouched.index_QK, found.index_QK)


def test_a_report_tells_what_it_left_out():
    queries = (Query("q2", "B", None, "t", "t"), Query("q1", "x", None, "u", "u"))
    passages = (*(Passage(name, "", name) for name in "ab"), Passage("q2", "", "b"), Passage("void", "", " "))
    task = RetrievalTask("task", queries, passages, {"q2": {"b": 1}, "q1": {"a": 1, "void": 1}})
    found = SearchResult(["q2", "q1"], ["a", "b", "q2"], np.array([[2, 1], [0, 2]]), np.ones((2, 2), np.float32))
    report = judge(task, found, 1, resamples=5)
    assert report.scores["ndcg@10"] == pytest.approx((1 + 1 / (1 + 1 / np.log2(3))) / 2)  # what is void is missed
    assert (report.scores["passages"], report.scores["unfindable_passages"]) == (4, 1)
    assert report.scores["ignored_identical_ids"] == 1
    said = table([report], "a \x1b[2J query")
    assert "task: 1 queries stand in the collection themselves" in said
    assert "task: 1 passages have neither text nor title" in said
    assert "\x1b" not in said


def test_scores_look_beyond_the_passages_that_are_kept():
    found = result([1, 0, 2], [0, 1, 2], [1, 2, 0])  # what is right stands at the second place
    whole, cut = (judge(TASK, found, k, resamples=20) for k in (3, 1))
    assert (cut.scores["mrr@10"], cut.scores["recall@100"]) == (1 / 2, 1)
    assert cut.scores == whole.scores
    assert cut.result.index_QK.tolist() == [[1], [0], [1]]


def test_files(tmp_path):
    first = judge(TASK, result([0, 1, 2], [0, 1, 2], [1, 0, -1]), 3, resamples=20)
    lonely = RetrievalTask("lonely", QUERIES[2:], PASSAGES, {"q3": {"c": 1}})
    second = judge(
        lonely, SearchResult(["q3"], ["a", "b", "c", "q2"], np.array([[2]]), np.ones((1, 1), np.float32)), 1, 20
    )
    write_report([first, second], "i [SEP] x", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "per_query.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == ["task"] * 3 + ["lonely"]
    groups = [json.loads(line) for line in (tmp_path / "per_group.jsonl").read_text().splitlines()]
    assert [row["task"] for row in groups] == ["task"] * first.scores["groups"] + ["lonely"]
    worst = [row["robustness@10"] for row in groups if row["task"] == "task"]
    assert sum(worst) / len(worst) == pytest.approx(first.scores["robustness@10"])
    assert (tmp_path / "ndcg_robustness.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "lonely.trec").read_text() == "q3 Q0 c 1 1 seedling\n"
    assert len(list(trec_lines(first.result))) == 8  # nothing stands for a place that was not filled
    text = (tmp_path / "report.md").read_text()
    assert "| task | 3 in 4 | 54.36 [" in text
    assert "| lonely | 1 in 4 | 100.00 | 100.00 |" in text  # one topic has no interval
    assert "Without brackets: a single topic" in text
    assert "Without brackets" not in table([first], "x")
    assert "`i [SEP] x`" in table([first], "i [SEP] x")
    nested = nested_results([first, second], format={"query": "sep"})
    assert nested["task"] == "task"
    assert nested["lonely"]["ndcg@10"] == 1
    assert nested["lonely"]["sibling_accuracy"] is None
    json.dumps(nested, allow_nan=False)
