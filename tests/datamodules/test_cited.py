"""Files of answers that cite: what is read, what is left out and counted, what is refused with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

from datamodules.cited import CitedAnswers
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import ScratchEncoder, WordTokenizer
from lm.tokens.cited_tokens import CitingTokens
from lm.tokens.tokenizer import PretrainedTokenizer
from text.errors import DataFormatError, UserError
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
        ({"test": [QUESTION | {"candidate_ids": ["px", "py", "p1"]}]}, "no passage 'px' and 1 more in .*corpus.jsonl"),
        (
            {"test": [QUESTION | {"candidate_ids": ["p2"]}]},
            "test.jsonl:1: field 'candidate_ids': lacks the gold passage 'p1': .*missing_gold count",
        ),
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
        ({"hard_negatives": -1}, "data.hard_negatives is -1: it must be 0 or more"),
        ({"held_out": -1}, "data.held_out is -1: it must be 0 or more"),
        ({"task": "verbatin"}, "data.task: no template for 'verbatin' in data.templates.*did you mean"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=f"(?i){message}"):
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


def test_no_more_is_said_of_unknown_passages_than_is_shown(tmp_path, monkeypatch):
    """Candidates of ALCE are a hundred to a question: whatever is like each of them took hours to find."""
    asked = []
    monkeypatch.setattr("text.citing.checks.did_you_mean", lambda id, _: asked.append(id) or "")
    questions = [QUESTION | {"id": f"q{n}", "candidate_ids": ["p1", f"x{n}", f"y{n}"]} for n in range(50)]
    with pytest.raises(DataFormatError):
        data(tmp_path, test=questions).setup("test")
    answers = [ANSWER | {"id": f"a{n}", "hard_negatives": [f"x{n}", f"y{n}"]} for n in range(50)]
    with pytest.raises(DataFormatError):
        data(tmp_path, train=answers).setup("fit")
    assert asked == [f"x{n}" for n in range(DataFormatError.SHOWN)] * 2


def test_missing_gold_can_be_counted(tmp_path, caplog):
    asked = [QUESTION | {"gold_ids": ["p7"]}, QUESTION | {"id": "q2", "candidate_ids": ["p2"]}]
    module = data(tmp_path, {"missing_gold": "count"}, test=asked)
    with caplog.at_level("INFO"):
        module.setup("test")
    assert len(module.questions) == 2
    assert "2 gold passages are not in the corpus, or not among the candidates of their question" in caplog.text


def test_records_without_a_task_are_of_the_one_that_is_told(tmp_path):
    options = {"task": "wow", "templates": {"wow": "Go on: {question}"}}
    asked = [{"question": "which", "answers": ["two"]}, QUESTION | {"task": "verbatim"}]
    module = data(tmp_path, options, test=asked, train=[ANSWER])
    module.setup("fit")
    assert tokens(module, module._tables["train"].rows[0].tokens).startswith("Go on: which so")
    module.setup("test")
    [batch] = module.test_dataloader()
    told = dict(zip(batch.ids, batch.records, strict=True))
    assert {id: record["task"] for id, record in told.items()} == {"0": "wow", "q1": "verbatim"}  # 0 is its position


# --- models of several parts ------------------------------------------------------------------------------------------

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def method(**parts: Any) -> SimpleNamespace:
    """A trainer whose module is built from these."""
    known = {"model": ScratchBackbone("llama", SIZES | {"max_position_embeddings": 64})} | parts
    module = SimpleNamespace(backbone=known["model"], backbones=lambda: known)
    return SimpleNamespace(lightning_module=module, world_size=1)


def reading(most: int) -> ScratchEncoder:
    """A part that reads so many tokens."""
    return ScratchEncoder("gpt2", {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": most})


@pytest.mark.parametrize("part", ["embedder", "querier"])
def test_passages_must_fit_every_part(tmp_path, part):
    """A longer one ended in an IndexError where positions are learnt, and was read past the context elsewhere."""
    module = data(tmp_path)
    module.trainer = method(**{part: reading(4)})
    told = (
        f"corpus.jsonl:1: field 'text': 4 tokens, and the context of '{part}' is 4: give data.passage_max_length below"
    )
    with pytest.raises(DataFormatError, match=told):
        module.setup("fit")
    module = data(tmp_path, {"passage_max_length": 3})
    module.trainer = method(**{part: reading(4)})
    module.setup("predict" if part == "embedder" else "validate")  # a passage of 3 words and [Emb]


def test_answers_fit_the_part_that_searches_and_not_the_one_that_embeds(tmp_path):
    whole = 11  # tokens of the answer with its question
    for parts, left in (({"querier": reading(8)}, 2), ({"embedder": reading(8)}, whole)):
        module = data(tmp_path)
        module.trainer = method(**parts)
        module.setup("fit")
        assert len(module._tables["train"].rows[0].tokens) == left


def test_every_part_reads_the_same_tokens(tmp_path):
    def folder(name: str, *words: str) -> str:
        tokenizer = WordTokenizer(eos_token="[EOS]", words=words).build([])
        CitingTokens().add_to(tokenizer)
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    own, other = folder("own", "which", "one", "two"), folder("other", "two", "one", "which", "more")
    for name, wrong in ((own, False), (other, True)):
        module = data(tmp_path, {"tokenizer": PretrainedTokenizer(own)})
        module.trainer = method(
            embedder=SimpleNamespace(
                tokenizer_name=name, tokenizer_at=PretrainedTokenizer, configuration=lambda _: LlamaConfig(**SIZES)
            )
        )
        if wrong:
            with pytest.raises(UserError, match=r"model.embedder: .*other' reads other ids: .* has the id"):
                module.setup("fit")
        else:
            module.setup("fit")
