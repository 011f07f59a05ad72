"""Folders become tasks, pairs become batches; what is wrong is said with file, line and field."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from datamodules import BEIR
from lm.encoder import EncoderTokenizer, WordTokenizer
from tests.retrieval_folders import beir_folder, encoder_folder, jsonl, tsv
from text.errors import DataFormatError, UserError
from text.retrieval import TextFormat
from worlds import World


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> EncoderTokenizer:
    return EncoderTokenizer(encoder_folder(tmp_path_factory.mktemp("encoder")))


def set_up(stage: str = "test", **arguments) -> BEIR:
    data = BEIR(**({"tokenizer": WordTokenizer()} | arguments))
    data.setup(stage)
    return data


def test_a_folder_is_a_task(tmp_path, tokenizer):
    folder = beir_folder(tmp_path)
    data = set_up(path=str(folder), tokenizer=tokenizer)
    (task,) = data.tasks
    assert [query.id for query in task.queries] == ["q0", "q1"]  # nothing is relevant to q2
    assert task.qrels == {"q0": {"0": 2, "3": 1}, "q1": {"1": 1, "2": -1}}
    assert [passage.id for passage in task.passages] == list("012345")  # numbers are read as strings
    assert data.pool.texts[data.pool.passages["test"][1]].string == "t word1 common"
    rows = torch.cat([batch.rows for batch in data.test_dataloader()])
    assert sorted(rows.tolist()) == list(range(len(data.pool.texts)))


def test_equal_texts_are_encoded_once(tmp_path, tokenizer):
    jsonl(tmp_path / "corpus.jsonl", [{"_id": i, "text": "same words"} for i in range(4)])
    jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "query": "same words", "instruction": "do tell"}])
    tsv(tmp_path / "qrels/test.tsv", [("q", "0", 1)])
    data = set_up(path=str(tmp_path), tokenizer=tokenizer)
    assert [task.name for task in data.tasks] == ["test", "query_only"]
    assert sorted(text.string for text in data.pool.texts) == ["do tell [SEP] same words", "same words"]


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        (
            "corpus.jsonl",
            [{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}],
            "corpus.jsonl:2: field 'id': a is already",
        ),
        ("corpus.jsonl", [{"_id": "a", "text": " "}], "corpus.jsonl:1: field 'text': must not be empty"),
        (
            "corpus.jsonl",
            [{"text": "x"}],
            "corpus.jsonl:1: field '_id': missing. A PassageRecord needs '_id' and 'text'",
        ),
        ("corpus.jsonl", [{"_id": 1.5, "text": "x"}], "corpus.jsonl:1: field '_id': should be a valid string"),
        ("queries.jsonl", [{"_id": "q0", "text": "a [SEP] b [SEP] c"}], "queries.jsonl:1: field 'text': 2 times [SEP]"),
        ("queries.jsonl", [{"_id": "q0"}], "queries.jsonl:1: field 'query': give either 'text', or 'query'"),
        ("queries.jsonl", [{"_id": "q9", "text": "x"}], "test.tsv:2: field 'query-id': 'q0' is not among the queries"),
        ("corpus.jsonl", [{"_id": "0", "text": "x"}], "test.tsv:3: field 'corpus-id': '3' is not in the corpus"),
    ],
)
def test_complaints_name_file_line_and_field(tmp_path, tokenizer, file, rows, message):
    jsonl(beir_folder(tmp_path) / file, rows)
    with pytest.raises(DataFormatError) as refused:
        set_up(path=str(tmp_path), tokenizer=tokenizer)
    assert message in str(refused.value)


def test_missing_things_are_named(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"nothing to search: give data\.path"):
        set_up(tokenizer=tokenizer)
    with pytest.raises(UserError, match="no such file"):
        set_up(path=str(tmp_path / "nowhere"), tokenizer=tokenizer)
    with pytest.raises(UserError, match=r"dev.tsv: no such file"):
        set_up(path=str(beir_folder(tmp_path / "folder")), split="dev", tokenizer=tokenizer)
    with pytest.raises(UserError, match="nothing to train on"):
        set_up("fit", path=str(tmp_path / "folder"), tokenizer=tokenizer)
    tsv(tmp_path / "folder/qrels/test.tsv", [("q0", "0", 0)])
    with pytest.raises(UserError, match="task 'test': no query has a relevant passage"):
        set_up(path=str(tmp_path / "folder"), tokenizer=tokenizer)


def test_passages_that_are_missing_can_be_counted(tmp_path, tokenizer):
    folder = beir_folder(tmp_path)
    jsonl(folder / "corpus.jsonl", [{"_id": "0", "text": "x"}])
    data = set_up(path=str(folder), missing_passages="count", tokenizer=tokenizer)
    assert data.tasks[0].qrels["q1"] == {"1": 1, "2": -1}


NEGATIVES = {"negatives": ["d", "e", "f"], "instruction_negatives": ["g"]}
PAIRS = [
    {"query": "a b", "instruction": f"as {user}", "positive": {"_id": g + user, "text": f"c {user}"}, "group_id": g}
    | NEGATIVES
    for g in "xyz"
    for user in "uvw"
]


def test_pairs_become_batches_with_their_siblings(tmp_path):
    path = str(jsonl(tmp_path / "pairs.jsonl", PAIRS))
    data = set_up("fit", train=path, batch_size=6, siblings=3, num_negatives=2)
    (first, *rest) = data.train_dataloader()
    assert not rest  # nine pairs make one batch of two groups
    words = data.tokenizer.get_vocab()
    assert first.queries.input_ids.shape == (6, 5)  # as u [SEP] a b
    assert len(first.documents) == 6 + 6 * 2
    assert first.document_keys.shape == (18,)
    assert (first.document_keys[:6] == first.positive_keys[:, 0]).all()
    negatives = first.documents.input_ids[6:].reshape(6, 2, -1)
    assert (negatives[:, 0, 0] == words["[UNK]"]).all()  # the negative of the instruction comes first
    assert first.queries.content_from.tolist() == [3] * 6


def test_a_world_trains_and_is_searched():
    class Toy(World):
        def records(self, split):
            if split == "train":
                return PAIRS
            if split == "corpus":
                return [pair["positive"] for pair in PAIRS]
            asked = {"query": "a b", "instruction": "as u"}
            return [{"_id": f"{g}_1", "relevant": {f"{g}u": 1}, "group_id": g, **asked} for g in "xyz"]

    data = set_up("fit", path=Toy(), batch_size=3, val_split="test")
    assert [task.name for task in data.tasks] == ["test", "query_only"]
    assert len(data.val_dataloader()) > 0
    groups = [
        {data.pairs._positive.index(int(key)) // 3 for key in batch.document_keys} for batch in data.train_dataloader()
    ]
    assert all(len(group) == 3 for group in groups)  # siblings: 1 keeps them apart


@pytest.mark.oracle("BEIR.batch_size", "BEIR.siblings")
def test_an_epoch_is_the_same_for_any_number_of_micro_batches(tmp_path):
    path = str(jsonl(tmp_path / "pairs.jsonl", PAIRS))
    epoch = list(set_up("fit", train=path, batch_size=3, seed=4).train_dataloader())
    again = list(set_up("fit", train=path, batch_size=3, seed=4).train_dataloader())
    for one, other in zip(epoch, again, strict=True):
        assert torch.equal(one.queries.input_ids, other.queries.input_ids)
        assert torch.equal(one.document_keys, other.document_keys)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_part_of_each_epoch_leaves_no_pair_out(tmp_path, accumulation):
    """Half an epoch twice is the epoch: what the limit cuts off comes next."""

    class Watch(LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone = None
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: list[list[int]] = []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch.document_keys.tolist())
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    path = str(jsonl(tmp_path / "pairs.jsonl", [{"query": f"a {n}", "positive": f"b {n}"} for n in range(16)]))
    module, data = Watch(), BEIR(train=path, batch_size=2 * accumulation, tokenizer=WordTokenizer())
    module.backbone = object()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 2}
    trainer = Trainer(**options, limit_train_batches=0.5, accumulate_grad_batches=accumulation)
    trainer.fit(module, data)
    assert len(module.seen) == 8
    assert len({key for batch in module.seen for key in batch}) == 16


def test_tevatron_records_are_read(tmp_path):
    record = {
        "query_id": "7",
        "query": "wine which is red",
        "only_query": "wine",
        "only_instruction": "which is red",
        "has_instruction": True,
        "positive_passages": [{"docid": "a", "title": "T", "text": "red"}, {"docid": "b", "title": "", "text": "rose"}],
        "negative_passages": [{"docid": "c", "title": "", "text": "white"}],
        "new_negatives": [{"docid": "-1", "title": "", "text": "blue"}],
    }
    other = {"query": "beer", "positive": "ale", "negatives": ["tea", "milk"]}
    path = str(jsonl(tmp_path / "pairs.jsonl", [record, other]))
    data = set_up("fit", train=path, batch_size=2, num_negatives=2, format=TextFormat(passage="{title} {text}"))
    (batch,) = data.train_dataloader()
    row = batch.queries.rows.tolist().index(0)
    words = {number: word for word, number in data.tokenizer.get_vocab().items()}
    text = [words[i] for i in batch.queries.input_ids[row].tolist()]
    assert text == ["which", "is", "red", "[SEP]", "wine"]
    assert len(set(batch.positive_keys[row].tolist()) - {0}) == 2
    assert batch.document_keys[row] in batch.positive_keys[row]
    assert batch.positive_keys[1 - row].tolist().count(0) == 1


def test_pairs_that_do_not_fit_are_refused(tmp_path):
    path = str(jsonl(tmp_path / "pairs.jsonl", [{"query": "a", "positive": "b", "negatives": ["c"]}] * 2))
    with pytest.raises(UserError, match=r"pairs.jsonl:1: field 'negatives': 1 of them, and num_negatives is 2"):
        set_up("fit", train=path, batch_size=2, num_negatives=2)
    bad = {"query": "a", "positive": "b", "negatives": ["c"], "negative_scores": [1.0, 2.0]}
    path = str(jsonl(tmp_path / "scores.jsonl", [bad]))
    with pytest.raises(DataFormatError, match=r"scores.jsonl:1: field 'negative_scores': 2 scores for 1 negatives"):
        set_up("fit", train=path, batch_size=1)


def test_teacher_scores_follow_their_negatives(tmp_path):
    pair = {"query": "a", "positive": "b", "instruction_negatives": ["i"], "negatives": ["c", "d", "e"]}
    pair |= {"positive_score": 9.0, "negative_scores": [0.5, 1.0, 2.0, 3.0]}
    path = str(jsonl(tmp_path / "pairs.jsonl", [pair, pair | {"query": "z"}]))
    data = set_up("fit", train=path, batch_size=2, num_negatives=3)
    (batch,) = data.train_dataloader()
    keys = {word: data.pairs._key(word) for word in "bicde"}
    score = dict(zip((keys[word] for word in "bicde"), (9.0, 0.5, 1.0, 2.0, 3.0), strict=True))
    documents = batch.document_keys.tolist()
    for row in range(2):
        own = [documents[row], *documents[2 + 3 * row : 5 + 3 * row]]
        assert own[:2] == [keys["b"], keys["i"]]
        assert batch.teacher_scores[row].tolist() == [score[key] for key in own]
