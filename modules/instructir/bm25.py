"""BM25: the lexical reference that needs no training and reads no instruction (Robertson and Zaragoza 2009).

A method without weights: words that query and passage share (lm/retrieval/bm25.py). `test` and `validate` judge what is
found, `predict` writes it. This file does not know how instruction and query became one string.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from lightning.pytorch import LightningModule

from lm.files.hyperparameters import PlainHyperparameters
from lm.retrieval import BM25Retriever
from lm.retrieval.embed_and_search import HasRetrievalTasks
from metrics.retrieval.found_passages import write_found
from metrics.retrieval.ranks import SearchResult
from metrics.retrieval.retrieval_report import DEEPEST, TaskReport, headline, judge, nested_results, tell
from text.errors import UserError
from text.retrieval.tasks import RetrievalTask


class BM25(PlainHyperparameters, LightningModule):
    """Ranks the passages of every task by the words they share with the query.

    Args:
        k1: how soon further occurrences of a word stop counting. 0.9 is Anserini's, 1.5 that of many libraries.
        b: how much long passages are held back. 0.4 and 0.75 respectively.
        method: see lm.retrieval.BM25Retriever.
        stopwords: see there.
        stemmer: see there.
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
        if k < 1:
            raise UserError(f"BM25: k is {k}; it must be 1 or more")
        self.retriever = BM25Retriever(k1, b, method, stopwords, stemmer)
        self.k, self.resamples = k, resamples
        self.results: dict[str, Any] = {}

    def on_test_start(self) -> None:
        """Nothing is known yet; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.reports: list[TaskReport] = []

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Search one task: a batch is its number."""
        self.reports.append(judge(*self.search(int(batch), max(self.k, DEEPEST)), self.k, self.resamples))

    def predict_step(self, batch: int, batch_idx: int) -> str:
        """Search one task, and write what was found; its name."""
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        task, result = self.search(int(batch), self.k)
        if self.trainer.is_global_zero:
            write_found(task, result, self.k, log_dir)
        return task.name

    def search(self, number: int, k: int) -> tuple[RetrievalTask, SearchResult]:
        """The best passages for the queries of a task; one more than k where these stand in the collection."""
        data: HasRetrievalTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        task = data.tasks[number]
        asked = [data.pool.texts[query].string for query in data.pool.queries[task.name]]
        index = replace(self.retriever, format=data.format).index(task.findable)
        found = index.places(asked, k + bool(task.itself))
        return task, SearchResult([query.id for query in task.queries], [*index.rows], *found)

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
