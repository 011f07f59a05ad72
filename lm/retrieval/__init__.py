"""Embedding, contrastive batches, and search.

It does not know losses or reports.
"""

from lm.retrieval.embed_and_search import Searching
from lm.retrieval.gradient_cache import encode_cached, encode_texts
from lm.retrieval.pooling import pool
from lm.retrieval.sentence_folder import save_sentence_folder

__all__ = [
    "Searching",
    "encode_cached",
    "encode_texts",
    "pool",
    "save_sentence_folder",
]
