"""Files of answers that cite: what is read, what is left out and counted, what is refused with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.cited import CitedAnswers
from lm.backbones.encoder import WordTokenizer
from text.errors import UserError
from worlds import World

CORPUS = [{"id": "p1", "title": "T", "text": "one two"}, {"_id": "p2", "text": "three"}]
ANSWER = {"id": "a1", "question": "which", "segments": [{"text": "so"}, {"retrieve": "p1", "text": "two"}]}
QUESTION = {"id": "q1", "question": "which", "answers": ["two"], "gold_ids": ["p1"]}


def files(folder: Path, **tables: list[Any]) -> dict[str, str]:
    """JSON lines by name."""
    given = {"corpus": CORPUS, "train": [ANSWER], "test": [QUESTION]} | tables
    for name, lines in given.items():
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / f"{name}.jsonl").write_text("\n".join(texts))
    return {name: str(folder / f"{name}.jsonl") for name in given}


def data(folder: Path, options: dict[str, Any] | None = None, **tables: list[Any]) -> CitedAnswers:
    tokenizer = WordTokenizer(eos_token="[EOS]")
    return CitedAnswers(**(files(folder, **tables) | {"tokenizer": tokenizer, "batch_size": 1} | (options or {})))


def tokens(module: CitedAnswers, ids: Any) -> str:
    assert module.tokenizer is not None
    return " ".join(module.tokenizer.convert_ids_to_tokens(ids))


def test_rows_are_questions_segments_and_passages(tmp_path):
    module = data(tmp_path)
    module.setup("fit")
    row = module._tables["train"].rows[0]
    assert tokens(module, row.tokens) == "which so [Ret] T :: one two [Cs] two [Ce] [EOS]"
    assert row.prompt == 1
    assert [tokens(module, module.passage_tokens.by.embedded(ids)) for ids in module.passage_tokens.ids] == [
        "T :: one two [Emb]",
        "three [Emb]",
    ]
    [batch] = module.train_dataloader()
    assert (batch.labels.tolist(), batch.passage_keys.tolist(), batch.ids) == ([0], [1], ["a1"])
    module.setup("test")
    [asked] = module.test_dataloader()
    assert (asked.ids, asked.records[0]["gold_ids"]) == (["q1"], ["p1"])


def test_whole_segments_are_left_out_where_there_is_no_room(tmp_path):
    module = data(tmp_path, {"max_length": 8})
    module.setup("fit")
    table = module._tables["train"]
    assert tokens(module, table.rows[0].tokens) == "which so"  # no half citation, and no end
    assert table.left_out["last segments have no room (truncated)"] == 1


def test_answers_that_cite_nothing_are_counted(tmp_path):
    plain = {"id": "a2", "question": "say", "segments": [{"text": "it"}]}
    module = data(tmp_path, train=[ANSWER, plain])
    module.setup("fit")
    assert module._tables["train"].ids == ["a1"]
    module = data(tmp_path, {"allow_no_retrieval": True}, train=[ANSWER, plain])
    module.setup("fit")
    assert len(module._tables["train"]) == 2


def test_answers_that_fill_no_batch_are_counted(tmp_path, caplog):
    """Three answers of one group and one of another, two of a group in a batch."""
    answers = [ANSWER | {"id": f"a{n}", "group_id": "gggh"[n]} for n in range(4)]
    module = data(tmp_path, {"batch_size": 2, "siblings": 2}, train=answers)
    module.setup("fit")
    with caplog.at_level("INFO"):
        assert len(module.train_dataloader()) == 1
    assert "train: of 4 answers 1 are never used, which are in groups of fewer than 2" in caplog.text
    assert "1 are left out of an epoch" in caplog.text


def test_questions_with_gold_are_held_out_from_the_end(tmp_path):
    records = [QUESTION | {"id": f"q{n}"} for n in range(5)]
    module = data(tmp_path, {"held_out": 2, "test": None}, train=records)
    module.setup("fit")
    module.setup("test")
    assert module._tables["train"].ids == ["q0", "q1", "q2"]
    assert module._tables["val"].ids == [found.record.id for found in module.questions] == ["q3", "q4"]
    with pytest.raises(UserError, match="held_out is 9"):
        data(tmp_path, {"held_out": 9, "test": None}, train=records).setup("fit")


class Asked(World):
    """Questions of a split."""

    def records(self, split: str) -> list[dict]:
        return [QUESTION | {"id": f"{split}{number}"} for number in range(3)]


def test_what_is_held_out_is_of_the_training_records_also_of_a_world(tmp_path):
    module = data(tmp_path, {"held_out": 1, "train": Asked(), "test": None})
    module.setup("fit")
    module.setup("test")
    assert module._tables["train"].ids == ["train0", "train1"]
    assert module._tables["val"].ids == [found.record.id for found in module.questions] == ["train2"]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": ["{"]}, r"train.jsonl:1: column \d+: invalid JSON"),
        ({"train": [ANSWER, ANSWER]}, "train.jsonl:2: field 'id': a1 is already the id of"),
        ({"train": [ANSWER | {"question": " "}]}, "train.jsonl:1: field 'question': must not be empty"),
        (
            {"train": [ANSWER, ANSWER | {"id": "b", "segments": [{"retrieve": "p9", "text": "x"}]}]},
            "train.jsonl:2: field 'segments': no passage 'p9' in .*corpus.jsonl: add it to data.corpus, or mend the id",
        ),
        ({"train": [ANSWER | {"hard_negatives": ["p3"]}]}, "field 'hard_negatives': no passage 'p3'"),
        ({"train": [ANSWER | {"task": "qua"}]}, "field 'task': no template for 'qua' in data.templates.*did you mean"),
        (
            {"train": [ANSWER | {"question": "a [Ret] b"}]},
            r"field 'question': holds '\[Ret\]', which is a control token",
        ),
        (
            {"train": [ANSWER | {"segments": [{"text": "x [Ce]"}]}]},
            r"train.jsonl:1: field 'segments\[0\].text': holds '\[Ce\]'",
        ),
        ({"corpus": [{"id": "p1", "text": "[Emb]"}]}, r"corpus.jsonl:1: field 'text': holds '\[Emb\]'"),
        ({"corpus": []}, "corpus.jsonl:1: empty: at least one PassageRecord is needed"),
        ({"corpus": [{"id": "p1", "title": "T"}]}, "corpus.jsonl:1: field 'text': empty or missing"),
        ({"corpus": [*CORPUS, {"id": "p1", "text": "other"}]}, "corpus.jsonl:3: field 'id': p1 is already the id"),
        ({"test": [QUESTION | {"gold_ids": ["p7"]}]}, "test.jsonl:1: field 'gold_ids': no passage 'p7'"),
        ({"test": [QUESTION | {"candidate_ids": ["p1", "px"]}]}, "field 'candidate_ids': no passage 'px'"),
        ({"test": [QUESTION | {"answers": []}]}, "field 'answers': empty: give the right answers"),
        ({"test": [{"id": "q", "question": "which"}]}, r"test.jsonl:1: field 'answers': missing: a test needs"),
    ],
)
def test_bad_input_is_refused_with_its_place(tmp_path, tables, message):
    module = data(tmp_path, **tables)
    with pytest.raises(UserError, match=f"(?i){message}"):
        module.setup("test" if "test" in tables else "fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"templates": {"qa": "ask"}}, r"template 'qa' 'ask' has no \{question\}"),
        ({"passage": "{body}"}, "template 'passage'"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        data(tmp_path, options)


def test_lengths_that_leave_no_room(tmp_path):
    long = ANSWER | {"question": "one two three one two three"}
    with pytest.raises(UserError, match=r"train.jsonl:1: field 'question': 6 tokens leave no room for an answer"):
        data(tmp_path, {"max_length": 6}, train=[long]).setup("fit")
    module = data(tmp_path, {"passage_max_length": 2})
    module.setup("fit")
    assert [len(ids) for ids in module.passage_tokens.ids] == [2, 1]


def test_questions_without_answers_can_be_answered(tmp_path):
    module = data(tmp_path, test=[{"id": "q", "question": "which"}])
    module.setup("predict")
    [asked] = module.predict_dataloader()
    assert (asked.ids, asked.records[0]["answers"]) == (["q"], [])


def test_missing_gold_can_be_counted(tmp_path):
    module = data(tmp_path, {"missing_gold": "count"}, test=[QUESTION | {"gold_ids": ["p7"]}])
    module.setup("test")
    assert len(module.questions) == 1
