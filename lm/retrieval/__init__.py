"""Retrieval: vectors of texts, contrastive batches, and indices that find passages by their words or by a vector.

It does not know losses or reports, nor what passages are wanted for.
"""

from lm.retrieval.bm25 import BM25Index, BM25Retriever
from lm.retrieval.dense import DenseRetriever
from lm.retrieval.embed_and_search import Searching
from lm.retrieval.gradient_cache import encode_cached, encode_texts
from lm.retrieval.index import Hit, Index, Retriever, Retrieves, VectorIndex
from lm.retrieval.pooling import pool
from lm.retrieval.sentence_folder import save_sentence_folder

__all__ = [
    "BM25Index",
    "BM25Retriever",
    "DenseRetriever",
    "Hit",
    "Index",
    "Retriever",
    "Retrieves",
    "Searching",
    "VectorIndex",
    "encode_cached",
    "encode_texts",
    "pool",
    "save_sentence_folder",
]
