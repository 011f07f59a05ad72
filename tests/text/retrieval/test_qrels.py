"""Judgement files: three columns under any header, TREC's four, and complaints with a line number."""

import pytest

from text.errors import DataFormatError, UserError
from text.retrieval.qrels import collect_qrels, parse_qrels, read_qrels


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


@pytest.mark.parametrize("score", ["²", "٣", "1.0", "0x1", "1_0", "--1", "", "NaN", "one"])
def test_only_integers_are_relevances(score):
    with pytest.raises(DataFormatError, match=r"q.tsv:2: field 'score': must be an integer"):
        parse_qrels(["a\tb\t1", f"a\tc\t{score}"], "q.tsv")


def test_integers_are_read_as_they_are_written():
    lines = ["a\tb\t+2", "a\tc\t-1", "a\td\t0012", "a\te\t 3 "]
    assert [j.relevance for j in parse_qrels(lines, "f")] == [2, -1, 12, 3]


@pytest.mark.parametrize("digits", [10, 25, 5000])
def test_a_relevance_is_no_number_of_any_length(digits):
    with pytest.raises(DataFormatError, match=r"^q.tsv:2: field 'score': must have 9 digits at most$"):
        parse_qrels(["a\tb\t1", "a\tc\t" + "7" * digits], "q.tsv")


@pytest.mark.parametrize("first", ["q0\td0\tyes", "q0\td0\t1.0", "q0\td0", "q0 0 d0 good"])
def test_a_first_judgement_that_cannot_be_read_is_no_header(first):
    with pytest.raises(DataFormatError, match=r"q.tsv:1: "):
        parse_qrels([first, "q1\td1\t1"], "q.tsv")


@pytest.mark.parametrize(
    "header", ["Query-ID\tCorpus-ID\tScore", "# topic iter doc rel", "qid pid label", "q d relevance"]
)
def test_headers_of_any_dialect(header):
    assert len(parse_qrels(["\n", header, "q1\td1\t1"], "f")) == 1
    assert len(parse_qrels(["q1\td1\t1"], "f")) == 1  # and none at all


def test_lines_that_contradict_one_another():
    lines = ["qid\tpid\tscore", "a\tx\t1", "a\ty\t0", "a\tx\t1", "a\tx\t0"]
    with pytest.raises(DataFormatError) as refused:
        parse_qrels(lines, "q.tsv")
    (problem,) = refused.value.problems
    assert problem == "q.tsv:5: field 'score': 0 for query 'a' and passage 'x', which q.tsv:2 judged 1"
    assert [j.relevance for j in parse_qrels(lines[:-1], "q.tsv")] == [1, 0]


def test_files(tmp_path):
    file = tmp_path / "test.tsv"
    file.write_bytes("\ufeffqid\tpid\tscore\nä\tb\u2028c\t1\r\n".encode())
    assert [tuple(j) for j in read_qrels(file)] == [("ä", "b\u2028c", 1, f"{file}:2")]
    file.write_bytes(b"a\tb\t1\na\t\xffc\t1\n")
    with pytest.raises(DataFormatError, match=r"test.tsv:2: not UTF-8 text"):
        read_qrels(file)
    with pytest.raises(UserError, match="no such file"):
        read_qrels(tmp_path / "tset.tsv")


def test_unknown_ids():
    judgements = parse_qrels(["a\tx\t1", "b\ty\t1"], "q.tsv")
    with pytest.raises(DataFormatError) as refused:
        collect_qrels(judgements, {"a"}, {"x"})
    assert refused.value.problems == [
        "q.tsv:2: field 'query-id': 'b' is not among the queries",
        "q.tsv:2: field 'corpus-id': 'y' is not in the corpus",
    ]
    assert collect_qrels(judgements, {"a", "b"}, {"x"}, missing_passages=True) == ({"a": {"x": 1}, "b": {"y": 1}}, 1)
