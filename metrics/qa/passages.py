"""Whether passages that were found answer a question: by an answer that stands in them, or by the ids of gold passages.

Both become ranks of relevant passages, which the metrics of metrics/retrieval/ranks.py read: hit@k (there called
success), recall@k and MRR. This file does not know what searched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metrics.retrieval.ranks import Ranks, mrr, recall, success
from text.qa.answers import contains_answer

CUTOFFS = (1, 5, 10)


def answer_ranks(passages: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> Ranks:
    """Ranks at which an answer stands; passages that were not found are unknown, so recall is among those that were.

    Args:
        passages: texts that were found for each question, best first, titles included.
        answers: of each question, in the same order.
    """
    held = [
        [rank for rank, text in enumerate(found, 1) if contains_answer(text, own)]
        for found, own in zip(passages, answers, strict=True)
    ]
    return _ranks(held)


def gold_ranks(found: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> Ranks:
    """Ranks of gold passages; 0 of those that were not found.

    Args:
        found: ids of the passages that were found for each question, best first.
        gold: ids of those that answer it, in the same order.
    """
    places = [{id: rank for rank, id in reversed([*enumerate(own, 1)])} for own in found]
    return _ranks([[own.get(id, 0) for id in dict.fromkeys(ids)] for own, ids in zip(places, gold, strict=True)])


def passage_scores(ranks: Ranks, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """``hit@k``, ``recall@k`` and ``mrr``, means over questions; NaN without any.

    Args:
        ranks: of relevant passages; a question without any scores 0.
        cutoffs: the k.
    """
    if not ranks.queries:
        return {f"{name}@{k}": float("nan") for name in ("hit", "recall") for k in cutoffs} | {"mrr": float("nan")}
    scores = {f"hit@{k}": float(success(ranks, k).mean()) for k in cutoffs}
    scores |= {f"recall@{k}": float(recall(ranks, k).mean()) for k in cutoffs}
    return scores | {"mrr": float(mrr(ranks, int(ranks.rank_J.max(initial=1))).mean())}


def _ranks(of_each: Sequence[Sequence[int]]) -> Ranks:
    """Ranks of the relevant passages of each question."""
    query_J = np.repeat(np.arange(len(of_each)), [len(own) for own in of_each])
    rank_J = np.asarray([rank for own in of_each for rank in own], dtype=np.int64)
    return Ranks(tuple(str(n) for n in range(len(of_each))), query_J, np.ones(len(rank_J), dtype=np.int64), rank_J)
