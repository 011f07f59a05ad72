"""A dense retriever finds what its encoder's vectors say, whoever made the encoder, and embeds nothing twice."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from transformers import AutoModel

from datamodules import BEIR
from lm.backbones.encoder import PretrainedEncoder
from lm.retrieval import DenseRetriever, Retrieves
from lm.retrieval.dense import open_encoder
from lm.retrieval.pooling import EmbeddingHead
from lm.retrieval.sentence_folder import published_head, save_sentence_folder
from lm.tokens.text_table import TextLoader
from modules import BiEncoder
from tests.retrieval_folders import encoder_folder, jsonl
from text.errors import UserError
from text.retrieval.tasks import Passage, Query, TextFormat

TEXTS = ["wine cabinets for a designer", "the cost of oak", "spider legs in parks", "a brewer at home", "oak"]
PASSAGES = [Passage(f"p{n}", "", text) for n, text in enumerate(TEXTS)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return encoder_folder(tmp_path_factory.mktemp("encoder"), initializer_range=0.5)


def vectors(folder: str, texts: list[str], normalize: bool = False) -> torch.Tensor:
    """Means of the tokens, by hand."""
    opened = open_encoder(folder)
    made = []
    for text in texts:
        ids = torch.tensor([opened.tokenizer(text)["input_ids"]])
        made.append(AutoModel.from_pretrained(folder).eval()(ids).last_hidden_state[0].mean(dim=0))
    found = torch.stack(made).detach()
    return torch.nn.functional.normalize(found, dim=-1) if normalize else found


def test_the_best_are_those_of_a_loop_over_all_passages(encoder):
    queries = ["spider legs", "oak", "home of a brewer"]
    hits = DenseRetriever(encoder, max_tokens=16).index(PASSAGES).search(queries, 3)
    best = (vectors(encoder, queries) @ vectors(encoder, TEXTS).T).topk(3, dim=1)
    assert [[hit.passage.id for hit in row] for row in hits] == [
        [f"p{i}" for i in row] for row in best.indices.tolist()
    ]
    np.testing.assert_allclose([[hit.score for hit in row] for row in hits], best.values, rtol=1e-4)
    assert len({row[0].passage.id for row in hits}) > 1


def test_texts_and_their_vectors_find_the_same(encoder):
    retriever = DenseRetriever(encoder)
    index = retriever.index([*PASSAGES, Passage("empty", "", " ")])
    assert isinstance(index, Retrieves)
    assert len(index.passages) == len(PASSAGES)  # nothing can find the others
    queries = [Query.of("oak parks", "as a brewer"), Query.of("wine")]
    assert index.search(retriever.encode(queries), 4) == index.search(queries, 4)


def test_nothing_is_embedded_twice(encoder, monkeypatch):
    embedded = []
    embed = EmbeddingHead.embed
    monkeypatch.setattr(
        EmbeddingHead, "embed", lambda self, m, b: embedded.extend(b.rows.tolist()) or embed(self, m, b)
    )
    first = DenseRetriever(encoder).index(PASSAGES)
    assert len(embedded) == 5
    again = DenseRetriever(encoder).index([*PASSAGES[::-1], Passage("new", "", "zoo keeper")])
    assert len(embedded) == 6
    query = torch.randn(1, 16)
    assert dict(again.search(query, 6)[0]).items() >= dict(first.search(query, 5)[0]).items()


def test_what_is_saved_is_what_is_loaded_and_says_what_is_stale(tmp_path, encoder):
    retriever = DenseRetriever(encoder)
    retriever.index(PASSAGES).save(tmp_path / "saved")
    again = retriever.load(tmp_path / "saved")
    assert again.search(["oak"], 3) == retriever.index(PASSAGES).search(["oak"], 3)
    other = encoder_folder(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="made with other weights: make the index anew"):
        DenseRetriever(other).load(tmp_path / "saved")
    with pytest.raises(UserError, match="made with other format"):
        replace(retriever, format=TextFormat(passage="{text}")).load(tmp_path / "saved")
    with pytest.raises(UserError, match="made with other weights and precision"):
        DenseRetriever(encoder, dtype="bfloat16").load(tmp_path / "saved")


def test_a_run_is_a_retriever(tmp_path, encoder):
    """With the head and the format that it was trained with, whatever the run's data was."""
    pairs = [{"query": text, "positive": {"_id": text, "text": f"all about {text}"}} for text in TEXTS]
    format = TextFormat(query="e5", passage="passage: {text}", passage_max_length=9)
    data = BEIR(train=str(jsonl(tmp_path / "pairs.jsonl", pairs)), batch_size=5, format=format)
    backbone = PretrainedEncoder(encoder)
    module = BiEncoder(backbone, pooling="last", projection=4, optimizer=partial(torch.optim.AdamW, lr=1e-2))
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    trainer = Trainer(accelerator="cpu", max_steps=2, **off)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    data.tokenizer.save_pretrained(tmp_path / "run/tokenizer")
    retriever = DenseRetriever(str(tmp_path / "run"))
    assert retriever.embedder.format == format
    tokens = retriever.embedder.tokens([format.of_passage(p) for p in PASSAGES], 9)
    (batch,) = TextLoader.share(tokens, 1000)
    with torch.no_grad():
        mine = module.eval().embed(batch)[batch.rows.argsort()]
    torch.testing.assert_close(torch.as_tensor(retriever.index(PASSAGES).vectors[np.arange(5)]), mine)
    with pytest.raises(UserError, match="does not exist"):
        DenseRetriever("runs/nothing/here").index(PASSAGES)


HEADS = [
    EmbeddingHead("mean", True, None, True),
    EmbeddingHead("cls", True, None, False),
    EmbeddingHead("last", True, torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), True),
    EmbeddingHead("weighted_mean", False, None, False),
]


@pytest.mark.parametrize("by", ["seedling", "the library"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.pooling)
def test_published_heads_are_read(tmp_path, encoder, head, by):
    """As we write them, and as version 6 of sentence-transformers does."""
    from sentence_transformers import SentenceTransformer

    opened, format = open_encoder(encoder), TextFormat("query: {query}", "text: {title} {text}", 24, 24)
    (tmp_path / "out").mkdir()
    save_sentence_folder(tmp_path / "out", opened.model, opened.tokenizer, head, format)
    if by == "the library":
        SentenceTransformer(str(tmp_path / "out"), device="cpu").save(str(tmp_path / "again"))
    found, told = published_head(str(tmp_path / ("again" if by == "the library" else "out")))
    assert (found.pooling, found.pool_prefix, found.normalize) == (head.pooling, head.pool_prefix, head.normalize)
    assert (found.projection is None) == (head.projection is None)
    if head.projection is not None:
        torch.testing.assert_close(found.projection, head.projection)
    assert (told.query, told.passage) == (format.query, format.passage)
    assert told.of_query(Query.of("oak")).string == "query: oak"


def test_a_model_that_is_made_of_other_things_is_refused(tmp_path, encoder):
    opened = open_encoder(encoder)
    save_sentence_folder(tmp_path, opened.model, opened.tokenizer, HEADS[0], TextFormat())
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed.insert(2, {"idx": 9, "name": "9", "path": "9_Spline", "type": "sentence_transformers.models.Spline"})
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match="is made of Transformer, Pooling, Spline, Normalize"):
        open_encoder(str(tmp_path))
    (tmp_path / "modules.json").write_text(json.dumps([listed[0], listed[1]]))
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "max"}))
    with pytest.raises(UserError, match="pools in a way that is none of cls, mean"):
        open_encoder(str(tmp_path))


def test_minilm_finds_what_is_meant():
    texts = ["The capital of France is Paris.", "Whales are mammals that live in the sea.", "Bread is made of flour."]
    index = DenseRetriever("builtin:minilm").index([Passage(str(n), "", text) for n, text in enumerate(texts)])
    asked = ["Which animals live in the ocean?", "What do bakers need?", "Where is the Louvre?"]
    assert [hits[0].passage.id for hits in index.search(asked, 1)] == ["1", "2", "0"]
    assert all(-1 <= hit.score <= 1 for hits in index.search(asked, 3) for hit in hits)
