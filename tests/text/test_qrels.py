"""Judgement files: three columns under any header, TREC's four, and complaints with a line number."""

import pytest

from text.errors import DataFormatError
from text.qrels import collect_qrels, parse_qrels


def test_headers_and_trec():
    beir = parse_qrels(["query-id\tcorpus-id\tscore\n", "q1\td 1\t2\n", "\n", "q1\td2\t-1\n"], "f")
    assert [tuple(j) for j in beir] == [("q1", "d 1", 2, "f:2"), ("q1", "d2", -1, "f:4")]
    assert [tuple(j) for j in parse_qrels(["q1 0 d1 1"], "f")] == [("q1", "d1", 1, "f:1")]
    assert [tuple(j) for j in parse_qrels(["q1\td1\t1\r\n"], "f")] == [("q1", "d1", 1, "f:1")]


def test_complaints():
    with pytest.raises(DataFormatError) as refused:
        parse_qrels(["qid\tpid\tscore", "a\tb\t1", "a\tb", "a\tb\tgood", "a\tb\t0.5"], "q.tsv")
    assert refused.value.problems == [
        "q.tsv:3: 2 columns; a judgement has query, passage and relevance",
        "q.tsv:4: field 'score': must be an integer, not 'good'",
        "q.tsv:5: field 'score': must be an integer, not '0.5'",
    ]
    with pytest.raises(DataFormatError, match=r"q.tsv:1: empty"):
        parse_qrels(["qid\tpid\tscore"], "q.tsv")


def test_unknown_ids():
    judgements = parse_qrels(["a\tx\t1", "b\ty\t1"], "q.tsv")
    with pytest.raises(DataFormatError) as refused:
        collect_qrels(judgements, {"a"}, {"x"})
    assert refused.value.problems == [
        "q.tsv:2: field 'query-id': 'b' is not among the queries",
        "q.tsv:2: field 'corpus-id': 'y' is not in the corpus",
    ]
    assert collect_qrels(judgements, {"a", "b"}, {"x"}, missing_passages=True) == ({"a": {"x": 1}, "b": {"y": 1}}, 1)
