"""Passages found by the vector that an encoder makes of them: a published encoder, or what a run has trained.

Knows encoders as folders and runs. It does not know how they are trained (modules/instructir/), nor who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.checkpoints import find_checkpoint, find_tokenizer, is_run, open_checkpoint, rebuild_model
from lm.backbones.dtypes import Dtype
from lm.backbones.encoder import EncoderTokenizer, PretrainedEncoder
from lm.backbones.kept_key import Keeper, keeper, weights_digest
from lm.forests.batches import TextBatch
from lm.retrieval.embedding_pass import EmbeddingPass
from lm.retrieval.index import Retriever, VectorIndex, readable
from lm.retrieval.pooling import EmbeddingHead
from lm.retrieval.sentence_folder import head_of, published_head
from lm.steps.gather import ranks
from lm.tokens.text_table import TextLoader, TokenTable, tokenise
from text.errors import UserError
from text.retrieval.tasks import Passage, Query, Text, TextFormat


@dataclass(frozen=True)
class Embedder:
    """An encoder, what stands after it, its words, and the format of its texts."""

    model: Any
    head: EmbeddingHead
    tokenizer: PreTrainedTokenizerBase
    format: TextFormat

    @torch.inference_mode()
    def embed(self, batch: TextBatch) -> Tensor:
        """One vector per text, [B, D]."""
        return self.head.embed(self.model, batch.to(self.model.device))

    def tokens(self, texts: Sequence[Text], max_length: int) -> TokenTable:
        """What the encoder reads of texts."""
        return tokenise(texts, self.tokenizer, max_length, self.format.append_eos, not self.head.pool_prefix)


def embedding_keeper(
    model: Any, head: EmbeddingHead, tokenizer: PreTrainedTokenizerBase, precision: str = "32-true"
) -> Keeper:
    """Who makes the vectors of tokens, as the weights are now; see `lm.backbones.kept_key.keeper`."""
    projection = {} if head.projection is None else {"projection": head.projection}
    plain = head.pooling, head.pool_prefix, head.normalize, precision
    return keeper(model, tokenizer, *plain, weights_digest(projection))


def open_encoder(name_or_path: str, dtype: Dtype = "float32") -> Embedder:
    """An encoder with the format that it was trained or published with.

    Args:
        name_or_path: see DenseRetriever.
        dtype: of its weights.

    Raises:
        UserError: if there is none, or it is of another kind.
    """
    if not is_run(name_or_path):
        tokenizer = EncoderTokenizer(name_or_path).build()
        model = PretrainedEncoder(name_or_path, dtype=dtype).build(tokenizer).eval()
        head, format = published_head(name_or_path)
        return Embedder(model, head, tokenizer, format)
    opened = open_checkpoint(found := find_checkpoint(name_or_path))
    if "encoder" not in opened["language_model"]:
        raise UserError(f"'{name_or_path}' is a run of {opened['language_model']['method']}, which trains no encoder")
    tokenizer, (head, format) = find_tokenizer(found, opened), head_of(opened)
    return Embedder(rebuild_model(opened, tokenizer, dtype=dtype), head, tokenizer, format)


@dataclass(frozen=True)
class DenseRetriever(Retriever):
    """The inner product of the vectors of query and passage, exactly.

    Vectors are kept by the content of the text and by all that makes them: a passage is embedded once, in whatever
    collections it stands. With several ranks each embeds a share, and all have to ask for an index.

    Args:
        encoder: a run of a `BiEncoder` or one of its checkpoints; or a folder of sentence-transformers, a hub id, or
            ``builtin:minilm``. What stands after the encoder is as it was trained, or published.
        format: how queries and passages become texts; null takes the run's, or the published prefixes and length.
        max_tokens: of a batch that is embedded, padding included. Small batches are faster on a CPU (1024), large ones
            on a GPU (16384 or more).
        dtype: of the encoder's weights.
        device: where; ``auto`` takes a GPU if there is one.
    """

    encoder: str
    format: TextFormat | None = None
    max_tokens: int = 1024
    dtype: Dtype = "float32"
    device: str = "auto"

    @cached_property
    def embedder(self) -> Embedder:
        """The encoder, opened when it is needed."""
        opened = open_encoder(self.encoder, self.dtype)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        return Embedder(opened.model.to(device), opened.head, opened.tokenizer, self.format or opened.format)

    @property
    def made_by(self) -> dict[str, str]:
        """On what an index depends beside its passages."""
        by, format = self.embedder, self.embedder.format
        text = f"{format.passage}, {format.passage_max_length} tokens, {'closed' if format.append_eos else 'open'}"
        return embedding_keeper(by.model, by.head, by.tokenizer)._asdict() | {"format": text}

    def index(self, passages: Sequence[Passage]) -> VectorIndex:
        """See Retriever."""
        by, passages = self.embedder, readable(passages)
        texts = [by.format.of_passage(passage) for passage in passages]
        tokens = by.tokens(texts, by.format.passage_max_length)
        kept_by = embedding_keeper(by.model, by.head, by.tokenizer)
        found = EmbeddingPass(texts, tokens, by.model, by.embed, by.head.width(by.model), kept_by)
        for batch in TextLoader.share(tokens, self.max_tokens, *ranks()):
            found.take(batch)
        found.finish()
        return VectorIndex(passages, found.rows(range(len(texts))), self.made_by, self.encode, by.model.device)

    def load(self, folder: Path) -> VectorIndex:
        """See Retriever."""
        return VectorIndex.load(folder, self.made_by, encode=self.encode, device=self.embedder.model.device)

    def encode(self, queries: Sequence[Query]) -> Tensor:
        """The vectors of queries, float32 or wider [Q, D]."""
        by = self.embedder
        tokens = by.tokens([by.format.of_query(query) for query in queries], by.format.query_max_length)
        vectors_QD = torch.empty(len(queries), by.head.width(by.model), device=by.model.device)
        for batch in TextLoader.share(tokens, self.max_tokens):
            vectors_QD[batch.rows] = by.embed(batch).to(vectors_QD)
        return vectors_QD
