"""BM25: the lexical reference that needs no training and reads no instruction (Robertson and Zaragoza 2009).

A method without weights: words that query and passage share, weighted by how rare they are and how often they occur.
This file does not know how instruction and query became one string.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningModule

from lm.files.hyperparameters import PlainHyperparameters
from lm.retrieval.embed_and_search import HasRetrievalTasks
from metrics.retrieval.ranks import SearchResult
from metrics.retrieval.retrieval_report import TaskReport, headline, judge, nested_results, tell
from text.errors import UserError


class BM25(PlainHyperparameters, LightningModule):
    """Ranks the passages of every task by the words they share with the query.

    Args:
        k1: how soon further occurrences of a word stop counting. 0.9 is Anserini's, 1.5 that of many libraries.
        b: how much long passages are held back. 0.4 and 0.75 respectively.
        method: the variant of the formula; ``lucene`` is the one in Anserini and Elasticsearch.
        stopwords: language whose function words are left out, or null.
        stemmer: language of the Snowball stemmer, or null.
        k: passages kept of each query; those that share no word with it are not returned.
        resamples: bootstrap draws of topics behind each interval.

    Attributes:
        results: the scores, as metrics.json holds them.
    """

    def __init__(
        self,
        k1: float = 0.9,
        b: float = 0.4,
        method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene",
        stopwords: str | None = "english",
        stemmer: str | None = "english",
        k: int = 1000,
        resamples: int = 1000,
    ):
        super().__init__()
        self.save_hyperparameters()
        if k1 < 0 or not 0 <= b <= 1 or k < 1:
            raise UserError(f"BM25: k1 {k1} must be 0 or more, b {b} lie in [0, 1], and k {k} be 1 or more")
        self.k1, self.b, self.method, self.stopwords, self.stemmer = k1, b, method, stopwords, stemmer
        self.k, self.resamples = k, resamples
        self.results: dict[str, Any] = {}

    def on_test_start(self) -> None:
        """Nothing is known yet; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.reports: list[TaskReport] = []

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Search one task: a batch is its number."""
        data: HasRetrievalTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        task = data.tasks[int(batch)]
        queries = [data.pool.texts[number].string for number in data.pool.queries[task.name]]
        passages = [data.pool.texts[number].string for number in data.pool.passages[task.name]]
        names = [passage.id for passage in task.findable]
        index, score = self.search(queries, passages, names, self.k + bool(task.itself))
        result = SearchResult([q.id for q in task.queries], names, index, score)
        self.reports.append(judge(task, result, self.k, self.resamples))

    def search(
        self, queries: list[str], passages: list[str], ids: list[str], k: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best passages of each query.

        Args:
            queries: Q strings.
            passages: the collection.
            ids: of the passages; equal scores are ordered by them, descending (which of several equals makes the
                K-th place is up to bm25s).
            k: how many are wanted, if not as many as the constructor was told.

        Returns: positions [Q, K], -1 where fewer share a word with the query, and scores float32 [Q, K].
        """
        import bm25s
        import Stemmer

        stem = Stemmer.Stemmer(self.stemmer) if self.stemmer else None
        order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__, reverse=True))

        def tokens(texts: list[str]) -> Any:
            return bm25s.tokenize(texts, stopwords=self.stopwords or [], stemmer=stem, show_progress=False)

        words, k = tokens([passages[place] for place in order]), min(k or self.k, len(ids))
        if not words.vocab:  # function words alone, which nothing shares
            return np.full((len(queries), k), -1), np.zeros((len(queries), k), np.float32)
        index = bm25s.BM25(k1=self.k1, b=self.b, method=self.method)
        index.index(words, show_progress=False)
        found, score = index.retrieve(tokens(queries), k=k, show_progress=False)
        by_id = np.argsort(found, axis=1, kind="stable")  # places in the order of ids ...
        found, score = np.take_along_axis(found, by_id, 1), np.take_along_axis(score, by_id, 1)
        by_score = np.argsort(-score, axis=1, kind="stable")  # ... which equal scores keep
        found, score = np.take_along_axis(found, by_score, 1), np.take_along_axis(score, by_score, 1)
        return np.where(score > 0, order[found], -1), score.astype(np.float32)

    def on_validation_start(self) -> None:
        """Nothing is known yet."""
        self.reports = []

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Search one task."""
        self.test_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """``val/ndcg@10`` and the other scores of the headline task."""
        self.log_dict(headline(self.reports[0]), rank_zero_only=True)

    def on_test_epoch_end(self) -> None:
        """Report all tasks."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.results = nested_results(self.reports, retriever=dict(self.hparams), format=vars(data.format))
        self.log_dict({name: self.results[name] for name in ("ndcg@10", "robustness@10")}, rank_zero_only=True)
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero:
            tell(self.reports, data.pool.example, log_dir)

    def configure_optimizers(self) -> None:
        """There is nothing to train."""
        raise UserError("BM25 has nothing to train: use `test`")
