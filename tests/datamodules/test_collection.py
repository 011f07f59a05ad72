"""A corpus file and a file of questions become a task; what is wrong is said with file, line and field."""

from __future__ import annotations

import pytest

from datamodules import Collection
from lm.backbones.encoder import WordTokenizer
from tests.retrieval_folders import jsonl
from text.errors import DataFormatError, UserError

CORPUS = [{"id": f"p{n}", "title": f"title {n}", "text": f"text {n}"} for n in range(4)]
QUESTIONS = [
    {"id": "a", "question": "which one?", "answers": ["1"], "gold_ids": ["p1", "p2"], "contexts": []},
    {"id": "b", "question": "who knows?", "answers": ["x"]},
    {"_id": "c", "query": "what else?", "instruction": "as a cook", "relevant": {"p0": 2}},
]


def tasks(folder, stage="test", corpus=CORPUS, questions=QUESTIONS, **options):
    files = {"corpus": jsonl(folder / "corpus.jsonl", corpus), "queries": jsonl(folder / "queries.jsonl", questions)}
    files = {name: str(file) for name, file in files.items()}
    data = Collection(tokenizer=WordTokenizer(), train=None, **files, **options)
    data.ask_all = stage == "predict"
    return data.read_tasks("test")


def test_a_test_asks_what_is_judged_and_predict_asks_everything(tmp_path):
    (task,) = tasks(tmp_path)
    assert task.qrels == {"a": {"p1": 1, "p2": 1}, "c": {"p0": 2}}
    assert [(query.query, query.instruction) for query in task.queries] == [
        ("which one?", None),
        ("what else?", "as a cook"),
    ]
    assert [(passage.id, passage.title) for passage in task.passages][:2] == [("p0", "title 0"), ("p1", "title 1")]
    (task,) = tasks(tmp_path, "predict")
    assert [query.id for query in task.queries] == ["a", "b", "c"]
    assert task.qrels["b"] == {}


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (
            [{"id": "a", "question": "?", "gold_ids": ["p9"]}],
            "queries.jsonl:1: field 'gold_ids': 'p9' is not in the co",
        ),
        ([{"id": "a", "question": "?", "gold_ids": "p1"}], "queries.jsonl:1: field 'gold_ids': must be a list of ids"),
        ([{"id": "a", "question": " "}], "queries.jsonl:1: field 'query': must not be empty"),
        ([{"question": "?"}], "queries.jsonl:1: field '_id': missing"),
        ([QUESTIONS[0]] * 2, "queries.jsonl:2: field 'id': a is already the id of"),
    ],
)
def test_complaints_name_file_line_and_field(tmp_path, questions, message):
    with pytest.raises(DataFormatError) as refused:
        tasks(tmp_path, questions=questions)
    assert message in str(refused.value)


def test_judgements_of_passages_that_are_missing_are_counted_where_that_is_asked_for(tmp_path, caplog):
    questions = [{"id": "a", "question": "?", "gold_ids": ["p9", "p1", "p8"]}]
    with caplog.at_level("INFO"):
        (task,) = tasks(tmp_path, questions=questions, missing_passages="count")
    assert task.qrels == {"a": {"p9": 1, "p1": 1, "p8": 1}}
    assert f"{tmp_path}/queries.jsonl: 2 judgements of passages that are not in the corpus" in caplog.text


def test_questions_without_judgements_cannot_be_tested(tmp_path):
    with pytest.raises(UserError, match="no query has a relevant passage"):
        tasks(tmp_path, questions=[QUESTIONS[1]])
