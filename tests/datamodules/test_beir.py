"""Folders become tasks, pairs become batches; what is wrong is said with file, line and field."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from datamodules import BEIR
from datamodules.retrieval_folder import find_table, read_passages
from lm.backbones.encoder import EncoderTokenizer, PretrainedEncoder, WordTokenizer
from lm.retrieval.contrastive_table import _key
from modules import BiEncoder
from tests.retrieval_folders import beir_folder, encoder_folder, jsonl, tsv
from text.errors import DataFormatError, UserError
from text.retrieval.tasks import TextFormat
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
        (
            "corpus.jsonl",
            [{"_id": "a", "text": " "}, {"_id": "b", "title": None}],
            "corpus.jsonl:1: field 'text': empty or missing here and in all passages, as is 'title'",
        ),
        (
            "corpus.jsonl",
            [{"text": "x"}],
            "corpus.jsonl:1: field '_id': missing. A PassageRecord needs '_id'",
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


def test_passages_without_text_are_read_by_their_title_or_counted(tmp_path, tokenizer, caplog):
    rows = [{"_id": "t", "title": "oak parks", "text": ""}, {"_id": "n", "title": None, "text": None}, {"_id": "m"}]
    jsonl(tmp_path / "corpus.jsonl", [*rows, {"_id": "w", "text": "spider legs"}])
    jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "oak"}])
    tsv(tmp_path / "qrels/test.tsv", [("q", "t", 1), ("q", "n", 1)])
    with caplog.at_level("INFO"):
        data = set_up(path=str(tmp_path), tokenizer=tokenizer)
    (task,) = data.tasks
    assert [passage.id for passage in task.passages] == ["t", "n", "m", "w"]
    assert [passage.id for passage in task.findable] == ["t", "w"]
    assert [data.pool.texts[number].string for number in data.pool.passages["test"]] == ["oak parks", "spider legs"]
    assert f"1 passages without text are read by their title; the first: {tmp_path}/corpus.jsonl:1" in caplog.text
    assert f"2 passages without text have no title either: nothing can find them; the first: {tmp_path}" in caplog.text


@pytest.mark.parametrize(("option", "ignored"), [("auto", {"0"}), (True, {"0", "1"}), (False, set())])
def test_queries_in_the_collection_are_announced(tmp_path, tokenizer, caplog, option, ignored):
    texts = ["wine cabinets", "all about oak", "spider legs", "cost of parks"]
    jsonl(tmp_path / "corpus.jsonl", [{"_id": n, "text": text} for n, text in enumerate(texts)])
    asked = ["Wine  cabinets", "brewer", "zoo"]
    jsonl(tmp_path / "queries.jsonl", [{"_id": n, "text": text} for n, text in enumerate(asked)])
    tsv(tmp_path / "qrels/test.tsv", [("0", "3", 1), ("1", "3", 1), ("2", "2", 1)])
    with caplog.at_level("INFO"):
        data = set_up(path=str(tmp_path), tokenizer=tokenizer, ignore_identical_ids=option)
    assert data.tasks[0].itself == ignored
    assert ("stand in the collection themselves" in caplog.text) == bool(ignored)
    assert ("share their id with a passage" in caplog.text) == (ignored != {"0", "1"})


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


def test_pairs_become_batches_with_their_siblings(tmp_path, caplog):
    path = str(jsonl(tmp_path / "pairs.jsonl", PAIRS))
    with caplog.at_level("INFO"):
        data = set_up("fit", train=path, batch_size=6, siblings=3, num_negatives=2)
    assert "train: of 9 pairs 3 are left out of an epoch" in caplog.text
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


@pytest.mark.parametrize("field", ["positive", "further_positives", "instruction_negatives", "negatives"])
def test_an_id_has_one_text(tmp_path, field):
    """Also over several files: the second text would never be read."""

    def pair(query: str, text: str) -> dict:
        passage = {"_id": "7", "title": "t", "text": text}
        return {"query": query, "positive": "b"} | {field: passage if field == "positive" else [passage]}

    jsonl(tmp_path / "part-1.jsonl", [pair("a", "red"), pair("b", "red")])
    jsonl(tmp_path / "part-2.jsonl", [pair("c", "blue")])
    with pytest.raises(DataFormatError) as refused:
        set_up("fit", train=str(tmp_path / "*.jsonl"), batch_size=2)
    assert str(refused.value).startswith(
        f"{tmp_path}/part-2.jsonl:1: field '{field}': the id '7' has another text than at {tmp_path}/part-1.jsonl:1"
    )
    assert len(set_up("fit", train=str(tmp_path / "part-1.jsonl"), batch_size=2).pairs) == 2


def test_passages_without_an_id_are_told_apart_by_what_they_say(tmp_path):
    """As Tevatron's files have them: -1 for every passage that was written anew."""
    pairs = [
        {
            "query_id": n,
            "query": f"q{n}",
            "positive_passages": [{"docid": n, "title": "", "text": f"p{n}"}],
            "negative_passages": [],
            "new_negatives": [{"docid": no, "title": "", "text": f"x{n}"}],
        }
        for n, no in enumerate(["-1", "-1", -1, None, ""])
    ]
    path = str(jsonl(tmp_path / "pairs.jsonl", pairs))
    data = set_up("fit", train=path, batch_size=5, num_negatives=1)
    (batch,) = data.train_dataloader()
    assert len(set(batch.document_keys.tolist())) == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positive_passages": "a"}, "field 'positive_passages': must be a list of passages"),
        ({"positive_passages": {"docid": "a"}}, "field 'positive_passages': must be a list of passages"),
        ({"negative_passages": ["a"]}, "field 'negative_passages': must be a list of passages"),
        ({"new_negatives": 3}, "field 'new_negatives': must be a list of passages"),
        ({"positive_passages": [{"docid": "a"}]}, "must not be empty: give 'text' or 'title'"),
    ],
)
def test_tevatron_records_of_another_type_are_refused(tmp_path, wrong, message):
    passage = {"docid": "a", "title": "", "text": "b"}
    path = str(jsonl(tmp_path / "pairs.jsonl", [{"query": "q", "positive_passages": [passage]} | wrong]))
    with pytest.raises(DataFormatError) as refused:
        set_up("fit", train=path, batch_size=1)
    assert str(refused.value).startswith(f"{path}:1: ")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"positive_score": float("nan")}, "field 'positive_score': should be a finite number"),
        ({"positive_score": float("-inf")}, "field 'positive_score': should be a finite number"),
        ({"negative_scores": [1.0, float("nan")]}, "field 'negative_scores': [1]: should be a finite number"),
    ],
)
def test_scores_of_a_teacher_are_finite(tmp_path, scores, message):
    pair = {
        "query": "a",
        "positive": "b",
        "negatives": ["c", "d"],
        "positive_score": 1.0,
        "negative_scores": [1.0, 0.5],
    }
    path = str(jsonl(tmp_path / "pairs.jsonl", [pair, pair | scores]))
    with pytest.raises(DataFormatError) as refused:
        set_up("fit", train=path, batch_size=1)
    assert str(refused.value).startswith(f"{path}:2: {message}")


@pytest.mark.parametrize("field", ["positive_score", "negative_scores"])
def test_half_a_teacher_is_refused(tmp_path, field):
    """Also where all pairs lack the same half: they were taken for pairs without a teacher."""
    pair = {"query": "a", "positive": "b", "negatives": ["c"], "positive_score": 1.0, "negative_scores": [0.5]}
    half = {key: value for key, value in pair.items() if key != field}
    for pairs in ([half, half], [half, pair]):
        path = str(jsonl(tmp_path / "pairs.jsonl", pairs))
        with pytest.raises(UserError, match=rf"pairs.jsonl:1: field '{field}': missing, where a teacher's scores"):
            set_up("fit", train=path, batch_size=1)


def test_what_is_not_pooled_must_leave_something(tmp_path, tokenizer):
    """An instruction that fills the limit, and a prefix: refused by name for an encoder that pools the text alone."""
    folder = tmp_path / "encoder"
    encoder = PretrainedEncoder(encoder_folder(folder))
    jsonl(tmp_path / "corpus.jsonl", [{"_id": "p", "text": "oak"}])
    jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "i am a designer of kitchens [SEP] oak"}])
    tsv(tmp_path / "qrels/test.tsv", [("q", "p", 1)])
    pairs = str(
        jsonl(tmp_path / "pairs.jsonl", [{"query": "oak", "instruction": "i am a designer", "positive": "zoo"}])
    )
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}

    def verb(name: str, format: TextFormat, pool_prefix: bool = False, **data) -> None:
        module = BiEncoder(encoder, pool_prefix=pool_prefix, keep_embeddings=False)
        getattr(Trainer(**options, max_steps=1), name)(module, datamodule=BEIR(format=format, **data))

    short = TextFormat(query_max_length=4)
    with pytest.raises(
        UserError, match=r"no token is left to pool of 'i am a designer of kitchens \[SEP\] oak': its first 4"
    ):
        verb("test", short, path=str(tmp_path))
    with pytest.raises(UserError, match="no token is left to pool of 'about all oak': its first 2"):
        verb("test", TextFormat(passage="about all {text}", passage_max_length=2), path=str(tmp_path))
    with pytest.raises(UserError, match=r"no token is left to pool of 'i am a designer \[SEP\] oak': its first 4"):
        verb("fit", short, train=pairs, batch_size=1)
    verb("fit", short, pool_prefix=True, train=pairs, batch_size=1)


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
    keys = {word: _key(word) for word in "bicde"}
    score = dict(zip((keys[word] for word in "bicde"), (9.0, 0.5, 1.0, 2.0, 3.0), strict=True))
    documents = batch.document_keys.tolist()
    for row in range(2):
        own = [documents[row], *documents[2 + 3 * row : 5 + 3 * row]]
        assert own[:2] == [keys["b"], keys["i"]]
        assert batch.teacher_scores[row].tolist() == [score[key] for key in own]


def test_tables_in_parts_are_found_in_a_folder_with_any_name(tmp_path):
    folder = tmp_path / "set [v1]"
    (folder / "corpus").mkdir(parents=True)
    for part in "ab":
        (folder / "corpus" / f"{part}.jsonl").write_text(f'{{"_id": "{part}", "text": "t"}}\n')
    assert [passage.id for passage in read_passages(find_table(folder, "corpus"))] == ["a", "b"]
