"""Finding passages: the index of a corpus, and the passages that a look-up finds, by states of models or by words.

This file knows passages, vectors and look-ups. It does not know which models make the vectors
(modules/co_supervision/models.py), nor who looks something up and why (modules/co_supervision/writer.py).

Legend: B texts, M look-ups, D width of states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lm.backbones.kept_key import Keeper, digest, model_sha256
from lm.forests.batches import TextBatch
from lm.forests.forest import Forest
from lm.forests.forest import Path as TokenPath
from lm.retrieval.embedding_pass import EmbeddingPass
from lm.retrieval.index import Index, Retriever, VectorIndex
from lm.steps.gather import ranks
from lm.tokens.cited_table import PassageTokens
from lm.tokens.text_table import TextLoader, TokenTable
from modules.co_supervision.look_ups import Hit, LookUp
from text.retrieval.tasks import Passage, Text

UNFOUND = "none where none fits"
"""What a look-up without a fitting passage finds; once it was the first passage, and answers that read it are kept."""


class Searches(Protocol):
    """Models whose vectors of look-ups find their vectors of passages.

    Attributes:
        cosine: whether directions are compared, or inner products.
    """

    cosine: bool

    @property
    def searcher(self) -> Any:
        """The model whose states search."""

    @property
    def reader(self) -> Any:
        """The model that reads passages."""

    @property
    def writer_searches(self) -> bool:
        """Whether states that come along with look-ups are those that search."""

    @property
    def device(self) -> torch.device:
        """Where the models are."""

    def searches(self, forest: Forest) -> Tensor:
        """States that search, at the look-ups that a forest wants [M, D]."""

    def embed(self, batch: TextBatch) -> Tensor:
        """The vectors of passages [B, D]."""

    def direction(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared."""


class PassageSearch:
    """Finds passages of a corpus: by the words of questions, or by states. Every rank has to make it.

    Args:
        models: that read and search.
        passages: of the corpus.
        tokens: of these.
        retriever: who finds passages in place of the models, by the words of the question.
        batch_tokens: tokens of passages that are read at once.
        by: makes the vectors of passages, which stay in the cache under its name; None keeps none.

    Attributes:
        index: what passages are found in.
        rows: the place of each passage in the corpus, by its id.
    """

    def __init__(
        self,
        models: Searches,
        passages: Sequence[Passage],
        tokens: PassageTokens,
        retriever: Retriever | None = None,
        batch_tokens: int = 1024,
        by: Keeper | None = None,
    ):
        self.models, self.passages, self.tokens, self.retriever = models, passages, tokens, retriever
        self.rows = {passage.id: row for row, passage in enumerate(passages)}
        self.index: Index = self._embedded(batch_tokens, by) if retriever is None else retriever.index(passages)

    def _embedded(self, batch_tokens: int, by: Keeper | None) -> VectorIndex:
        """The index by the vectors of passages."""
        reader, table = self.models.reader, _table(self.tokens)
        width = reader.config.get_text_config().hidden_size
        texts = [Text(passage.text, 0) for passage in self.passages]
        found = EmbeddingPass(texts, table, reader, self.models.embed, width, by)
        for batch in TextLoader.share(table, batch_tokens, *ranks()):
            found.take(batch.to(self.models.device))
        found.finish()
        vectors = torch.as_tensor(found.rows(range(len(texts)))[np.arange(len(texts))])
        found.close()
        return VectorIndex(self.passages, vectors.to(self.models.device))

    def key(self, questions: Sequence[Any]) -> str:
        """Hash of all that decides which passage a look-up finds: answers that are kept depend on it.

        Args:
            questions: that are asked, `Located` records.
        """
        if self.retriever is not None:  # it reads words that models may not be shown
            texts = [[passage.title, passage.text] for passage in self.passages]
            by: list[Any] = [str(self.retriever), self.retriever.made_by, texts, UNFOUND]
        else:
            by = [model_sha256(self.models.searcher), model_sha256(self.models.reader)]
        candidates = [[q.name, q.record.candidate_ids] for q in questions if q.record.candidate_ids]
        ids = [passage.id for passage in self.passages]
        return digest(by, self.models.cosine, ids, self.tokens.ids, candidates)

    def text(self, id: str) -> str:
        """The title and the words of a passage."""
        passage = self.passages[self.rows[id]]
        return f"{passage.title} {passage.text}".strip()

    # --- look-ups -------------------------------------------------------------------------------------------------

    def find(self, look_ups: Sequence[LookUp], k: int, queries: Any = None) -> list[list[Hit]]:
        """The k best passages of each look-up, found by `queries_of` them."""
        if not look_ups:
            return []
        among = [look_up.asked.candidates or self.rows for look_up in look_ups]
        among_all = all(look_up.asked.candidates is None for look_up in look_ups)
        queries = self.queries_of(look_ups) if queries is None else queries
        found = self.index.search(queries, k, None if among_all else among)
        return [[Hit(self.rows[hit.passage.id], hit.passage.id, hit.score) for hit in hits] for hits in found]

    def queries_of(self, look_ups: Sequence[LookUp]) -> Any:
        """By what passages are found: vectors [M, D], or the words of the questions."""
        if self.retriever is not None:
            return [look_up.asked.question for look_up in look_ups]
        return self.models.direction(self._states(look_ups)).float()

    def _states(self, look_ups: Sequence[LookUp]) -> Tensor:
        """The states that search [M, D]: those that came along, where the model that writes searches."""
        states = [look_up.state for look_up in look_ups]
        if self.models.writer_searches and all(state is not None for state in states):
            return torch.stack(states)  # type: ignore[arg-type]
        paths = [TokenPath(look_up.tokens, len(look_up.tokens), state=True) for look_up in look_ups]
        forest = Forest.from_paths(paths, range(len(paths))).to(self.models.device)
        with torch.no_grad():
            return self.models.searches(forest)

    def best(self, look_ups: Sequence[LookUp]) -> list[Hit | None]:
        """The best passage of each; None where none fits, as where a question shares no word with any."""
        return [next(iter(hits), None) for hits in self.find(look_ups, 1)]


def _table(tokens: PassageTokens) -> TokenTable:
    """The tokens of all passages, as they are embedded."""
    rows = [np.asarray(tokens.by.embedded(ids), np.int32) for ids in tokens.ids]
    starts = np.cumsum([0, *map(len, rows)])
    return TokenTable(np.concatenate(rows), starts, np.zeros(len(rows), np.int32), 0)
