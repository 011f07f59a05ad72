"""Queries, passages and relevance judgements, as their files have them and as encoders read them.

It does not know retrievers.
"""

from text.retrieval.qrels import read_qrels
from text.retrieval.tasks import Passage, Query, RetrievalTask, TextFormat, TextPool

__all__ = [
    "Passage",
    "Query",
    "RetrievalTask",
    "TextFormat",
    "TextPool",
    "read_qrels",
]
