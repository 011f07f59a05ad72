"""What rankings are worth, alone and with instructions, from judged documents to the report.

It does not know how documents were found.
"""

from metrics.retrieval.ranking import MAP, MRR, NDCG, Recall, Robustness
from metrics.retrieval.ranks import SearchResult

__all__ = [
    "MAP",
    "MRR",
    "NDCG",
    "Recall",
    "Robustness",
    "SearchResult",
]
