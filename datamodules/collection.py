"""A corpus and the queries over it, each a file of its own: what open-domain question answering searches.

Knows records. It does not know what is done with a task, nor what the answers are.
"""

from __future__ import annotations

from typing import Any

from datamodules.beir import BEIR
from datamodules.records import Source, name_of, read_records
from datamodules.retrieval_folder import made_queries, read_passages
from text.retrieval.qrels import Judgement
from text.retrieval.retrieval_records import QueryRecord
from text.retrieval.tasks import RetrievalTask


class Collection(BEIR):
    """Queries that search a corpus.

    `predict` finds passages for all of them; `test` scores those that name what is relevant to them.

    Args:
        corpus: passages (`text.retrieval.retrieval_records.PassageRecord`): ``id``, ``title`` and ``text``.
        queries: what is asked (`text.retrieval.retrieval_records.QueryRecord`): ``id``, ``question``, and for a test
            ``gold_ids``.
        kwargs: see BEIR.
    """

    def __init__(self, corpus: Source, queries: Source, **kwargs: Any):
        super().__init__(**kwargs)
        self.corpus, self.queries = corpus, queries

    def read_tasks(self, split: str) -> list[RetrievalTask]:
        """One task."""
        passages = read_passages(self.corpus)
        found = read_records(self.queries, QueryRecord, split)
        told = [Judgement(q.record.id, id, n, q.where) for q in found for id, n in q.record.relevant.items()]
        queries = made_queries(found)
        qrels = self.judged(told, name_of(self.queries), queries, passages, field="gold_ids")
        return [self.task(split, queries, passages, qrels)]
