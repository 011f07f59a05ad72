"""Rows of text: golden contents, the same global batch however it is split, exact resume, and the facts beside them."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule

from datamodules import Corpus
from datamodules.corpus import row_numbers
from datamodules.loading import Position
from lm.protocols import HasFacts
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer, tokenizer_sha256
from tests.shared_data import SHARED
from tests.stand_ins import scratch, tiny_tokenizer
from tests.stand_ins import trainer as quiet_trainer
from text.errors import DataFormatError, UserError
from worlds import Biographies

# Rows are short here, so facts lose probes; one test looks at how that is told.
pytestmark = pytest.mark.filterwarnings("ignore:facts for rows of")

COUNTRY = Biographies(people=20, documents=150, facts=6)
BPE = BPETokenizer(vocab_size=400)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def published(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return PretrainedTokenizer(str(tmp_path / "tokenizer"))


def corpus(train=COUNTRY, *, stage="fit", layout=(1, 1, 0), **options):
    options = {"tokenizer": BPE, "seq_len": 16, "batch_size": 8, "scenario_assignment": "round_robin", **options}
    if train is COUNTRY:
        options = {"long_passage": "truncate", **options}
    data = Corpus(train, **options)
    world_size, accumulation, rank = layout
    data.trainer = SimpleNamespace(
        distributed_sampler_kwargs={"num_replicas": world_size, "rank": rank} if world_size > 1 else None,
        accumulate_grad_batches=accumulation,
        max_steps=-1,
        lightning_module=None,
    )
    data.prepare_data()
    data.setup(stage)
    return data


def global_batch(step, world_size, accumulation, **options):
    """The rows of one optimizer step in the order of the global batch."""
    parts = []
    for index in range(accumulation):
        for rank in range(world_size):
            loader = corpus(layout=(world_size, accumulation, rank), **options).train_dataloader()
            position = Position(step * accumulation + index, step * accumulation + index, step)
            parts.append(loader.batch_at(position).input_ids)
    return torch.cat(parts)


@pytest.mark.oracle("Corpus", "Corpus.offset_steps")
def test_the_global_batch_does_not_depend_on_how_it_is_split():
    whole = global_batch(3, 1, 1)
    assert whole.shape == (8, 16)
    assert whole.dtype == torch.int64
    for world_size, accumulation in ((1, 4), (2, 1), (2, 2)):
        assert torch.equal(global_batch(3, world_size, accumulation), whole)
    assert torch.equal(global_batch(1, 1, 1, offset_steps=2), whole)
    assert not torch.equal(global_batch(3, 1, 1, seed=1), whole)


@pytest.mark.oracle("Corpus.batch_size", "Corpus.seed")
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_every_row_comes_once_an_epoch_also_across_batches(n_rows, batch_size, seed):
    steps = -(-3 * n_rows // batch_size)
    rows = np.concatenate([row_numbers(seed, n_rows, batch_size, step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(rows[epoch * n_rows : (epoch + 1) * n_rows]) == list(range(n_rows))
    if n_rows > 20:
        assert rows[:n_rows].tolist() != rows[n_rows : 2 * n_rows].tolist()


@pytest.mark.oracle("Corpus.train", "Corpus.tokenizer", "Corpus.seq_len", "Corpus.documents")
def test_rows_are_the_text_and_nothing_else(tmp_path, published):
    (tmp_path / "a.txt").write_text("the cat sat\n\non the mat")
    (tmp_path / "b.txt").write_text("hello world")
    data = corpus(str(tmp_path / "*.txt"), tokenizer=published, seq_len=4, batch_size=1)
    text = "the cat sat\n\non the mat<|endoftext|>hello world<|endoftext|>"
    assert text.startswith(data.tokenizer.decode(data.train_rows.reshape(-1)))
    assert len(data.tokenizer(text)["input_ids"]) - data.train_rows.size < 4
    lines = corpus(str(tmp_path / "a.txt"), tokenizer=published, seq_len=4, batch_size=1, documents="line")
    assert "sat<|endoftext|>on" in data.tokenizer.decode(lines.train_rows.reshape(-1))
    assert data.facts is None
    assert data.val_dataloader() == []


def test_records_token_files_and_data_sets_serve_too(tmp_path, published, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "set").mkdir()
    records = tmp_path / "set" / "train.jsonl"
    records.write_text('{"body": "the cat sat on the mat"}\n{"body": "hello world, said the fox"}\n')
    options = {"tokenizer": published, "seq_len": 4, "batch_size": 1, "text_column": "body"}
    rows = corpus(str(records), **options).train_rows
    assert np.array_equal(corpus(f"hub:{tmp_path / 'set'}", **options).train_rows, rows)
    assert np.array_equal(corpus(str(records), max_corpus_tokens=8, **options).train_rows, rows[:2])
    np.save(tmp_path / "tokens.npy", rows.reshape(-1))
    assert np.array_equal(corpus(str(tmp_path / "tokens.npy"), **options).train_rows, rows)
    with pytest.raises(UserError, match="holds token ids: give the PretrainedTokenizer that made them"):
        corpus(str(tmp_path / "tokens.npy"))
    np.save(tmp_path / "tokens2.npy", rows.reshape(-1))
    with pytest.raises(UserError, match="is 2 files: give one token file"):
        corpus(str(tmp_path / "tokens*.npy"), **options)


def test_max_corpus_tokens_is_for_training_alone(tmp_path, published):
    ids = np.arange(1, 101, dtype=np.uint16)
    np.save(tmp_path / "tokens.npy", ids)
    path = str(tmp_path / "tokens.npy")
    data = corpus(path, val=path, tokenizer=published, seq_len=4, batch_size=1, max_corpus_tokens=12)
    assert (len(data.train_rows), len(data.val_rows)) == (3, 25)


def test_rows_beyond_the_models_context_are_refused_before_anything_is_tokenised(tmp_path, published):
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 50)
    data = Corpus(str(tmp_path / "a.txt"), tokenizer=published, seq_len=65, batch_size=1)
    module = SimpleNamespace(backbone=scratch(max_position_embeddings=64))
    data.trainer = SimpleNamespace(lightning_module=module)
    with pytest.raises(UserError, match=r"^data\.seq_len is 65, and the model reads 64 tokens at most$"):
        data.prepare_data()
    data.seq_len = 64
    data.prepare_data()


def test_validation_sees_every_row_once():
    whole = corpus().val_rows
    for world_size, micro in ((1, 8), (2, 4), (3, 2)):
        ranks = [
            [
                batch.input_ids
                for batch in corpus(layout=(world_size, 1, rank), batch_size=micro * world_size).val_dataloader()
            ]
            for rank in range(world_size)
        ]
        assert len({len(batches) for batches in ranks}) == 1
        seen = Counter(tuple(row.tolist()) for batches in ranks for batch in batches for row in batch)
        assert seen == Counter(tuple(row.tolist()) for row in whole)


class Table(LightningModule):
    """Learns the mean of what it sees, and remembers it."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(16))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.input_ids.clone())
        return (batch.input_ids.float() - self.mean).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", batch.input_ids.float().mean(), batch_size=len(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(folder, steps, accumulation, checkpoint=None):
    data = Corpus(
        COUNTRY, tokenizer=BPE, seq_len=16, batch_size=160, long_passage="truncate", scenario_assignment="round_robin"
    )
    module, trainer = Table(), quiet_trainer(folder, max_steps=steps, accumulate_grad_batches=accumulation)
    trainer.fit(module, data, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return module, data


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(tmp_path, accumulation):
    whole, data = fit(tmp_path, 12, accumulation)
    assert len(data.train_rows) // 160 < 5  # so the run crosses epochs
    first, _ = fit(tmp_path, 6, accumulation)
    second, _ = fit(tmp_path, 12, accumulation, tmp_path / "6.ckpt")
    assert torch.equal(torch.cat(first.seen + second.seen), torch.cat(whole.seen))
    assert torch.equal(second.mean, whole.mean)
    rows = [data.train_rows[row_numbers(0, len(data.train_rows), 160, step)] for step in range(12)]
    assert np.array_equal(torch.cat(whole.seen).numpy(), np.concatenate(rows))


def test_checkpoints_hold_plain_values_only(tmp_path):
    fit(tmp_path, 1, 1)
    saved = torch.load(tmp_path / "1.ckpt", weights_only=True)
    assert saved["datamodule_hyper_parameters"]["seq_len"] == 16


def test_text_is_tokenised_once_and_again_when_it_changes(tmp_path, published, monkeypatch):
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 5)
    options = {"tokenizer": published, "seq_len": 4, "batch_size": 1}
    before = corpus(str(tmp_path / "a.txt"), **options).train_rows.tolist()
    with monkeypatch.context() as patch:
        patch.setattr("lm.tokens.token_cache._encoded", lambda *_: pytest.fail("tokenised twice"))
        assert corpus(str(tmp_path / "a.txt"), **options).train_rows.tolist() == before
    (tmp_path / "a.txt").write_text("hello world " * 9)
    assert corpus(str(tmp_path / "a.txt"), **options).train_rows.tolist() != before


def test_facts_come_from_the_world_or_a_file_and_fit_the_rows():
    data = corpus(seq_len=64, control_fraction=0.2)
    assert isinstance(data, HasFacts)
    assert Counter(fact.scenario for fact in data.facts) == {"duplication": 2, "paraphrase": 2, "once": 1, "control": 1}
    for fact in data.facts:
        for text in (fact.passage, *fact.paraphrases):
            assert len(data.tokenizer(text)["input_ids"]) <= 63
    with pytest.raises(
        DataFormatError, match=r"Biographies:1: field 'train_context': \d+ tokens, but a row has room for 15"
    ):
        corpus(long_passage="error")
    with pytest.warns(
        UserWarning, match=r"^facts for rows of 64 tokens: Biographies: the targets of \d+ probes are cut off"
    ):
        corpus(seq_len=64)


def test_the_tokenizer_never_sees_the_facts(tmp_path):
    (tmp_path / "facts.jsonl").write_text('{"train_context": "Quaxzibbeldy", "mem_input": ["a"], "mem_target": ["b"]}')
    hashes = {
        corpus(knowledge=knowledge, seq_len=64).tokenizer_sha256 for knowledge in (None, str(tmp_path / "facts.jsonl"))
    }
    assert len(hashes) == 1
    with_facts = corpus(knowledge=str(tmp_path / "facts.jsonl"), seq_len=64)
    assert tokenizer_sha256(with_facts.tokenizer) == with_facts.tokenizer_sha256
    assert [fact.passage for fact in with_facts.facts] == ["Quaxzibbeldy"]


def test_no_tokenizer_means_the_backbones_own(tmp_path, published):
    data = Corpus(COUNTRY, batch_size=2, seq_len=16)
    for backbone in (None, SimpleNamespace(tokenizer_name=None)):
        data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(backbone=backbone))
        with pytest.raises(UserError, match="this backbone has none: give class_path BPETokenizer"):
            data.prepare_data()
    own = SimpleNamespace(tokenizer_name=published.name_or_path, tokenizer_at=PretrainedTokenizer, revision=None)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(backbone=own))
    data.prepare_data()
    assert data.tokenizer_sha256 == tokenizer_sha256(tiny_tokenizer())


def test_impossible_sizes_are_refused_with_a_remedy(tmp_path, published):
    with pytest.raises(
        UserError, match=r"batch_size 8 .* must be a multiple of 3 ranks x 1 accumulated batches, such as 6"
    ):
        corpus(layout=(3, 1, 0)).train_dataloader()
    with pytest.raises(UserError, match="such as 16"):
        corpus(layout=(4, 4, 0)).train_dataloader()
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 5)
    with pytest.raises(UserError, match=r"a\.txt: \d+ tokens make \d rows of 4, but 99 are needed: give more text"):
        corpus(str(tmp_path / "a.txt"), tokenizer=published, seq_len=4, batch_size=99)
    with pytest.raises(UserError, match="make 0 rows of 400, but 1 are needed"):
        corpus(val=str(tmp_path / "a.txt"), seq_len=400, batch_size=1)
    for bad in ({"seq_len": 1}, {"batch_size": None}, {"seed": -1}, {"offset_steps": 0.5}):
        with pytest.raises(UserError, match=r"data\.\w+ is \S+: it must be a whole number of at least \d"):
            Corpus(COUNTRY, **bad)


def test_probes_are_what_there_is_to_predict(tmp_path, published):
    data = corpus(stage="predict")
    forests = list(data.predict_dataloader())
    assert (
        sum(forest.num_branches for forest in forests)
        >= len(data.probes.table)
        == sum(len(f.probes) for f in data.facts)
    )
    (tmp_path / "a.txt").write_text("the cat sat on the mat " * 5)
    with pytest.raises(UserError, match=r"give data\.knowledge"):
        corpus(str(tmp_path / "a.txt"), tokenizer=published, seq_len=4, batch_size=1).predict_dataloader()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared Fictional Knowledge and WikiText-2 files")
def test_the_papers_records_load_and_take_the_papers_parts():
    options = {
        "knowledge": str(SHARED / "fictional_knowledge" / "fictional_knowledge.jsonl"),
        "scenario_assignment": "official",
        "documents": "wikitext",
        "batch_size": 2,
    }
    name = str(SHARED / "tokenizers" / "gpt_neox_olmo_dolma_v1_5.json")
    olmo = PretrainedTokenizer(name, eos_token="<|endoftext|>")
    data = corpus(str(SHARED / "wikitext2" / "valid.txt"), tokenizer=olmo, seq_len=2048, **options)
    assert len(data.facts) == 100
    assert sum(len(fact.probes) for fact in data.facts) == 1500
    assert sum(len(fact.paraphrases) for fact in data.facts) == 306
    assert Counter(fact.scenario for fact in data.facts) == {"paraphrase": 34, "duplication": 33, "once": 33}
    lengths = []
    for probe in (probe for fact in data.facts for probe in fact.probes):
        context, target = (data.tokenizer(part)["input_ids"] for part in (probe.input, " " + probe.target))
        assert context + target == data.tokenizer(f"{probe.input} {probe.target}")["input_ids"]
        lengths.append(len(target))
    assert (min(lengths), max(lengths)) == (1, 14)
