"""Where judged documents came back, and what that is worth: nDCG, MRR, recall, MAP, Robustness over groups, p-MRR.

Every metric here needs only the ranks at which the judged documents of a query came back, so ranks are found once, in
one pass, and all cut-offs and metrics read them. metrics/retrieval/ranking.py gives them as torchmetrics. This file
does not know what a query is, nor what searched for it.

Rules: a higher score comes first; equal scores are ordered by document id, descending as strings; scores are compared
in float32, as trec_eval stores them. Gains are linear, negative judgements gain nothing, and a query without a run
scores 0 (torchmetrics' own retrieval metrics average over ties, and so differ).

Shape suffixes: Q queries, J judged (query, document) pairs, G groups of queries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from text.errors import UserError

Run = Mapping[str, Mapping[str, float]]  # query id -> document id -> score
Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> relevance


@dataclass(frozen=True)
class Ranks:
    """Where the judged documents of each query came back.

    Args:
        queries: [Q] ids.
        query_J: which query each judgement belongs to, in [0, Q).
        relevance_J: as judged.
        rank_J: 1-based rank of the judged document; 0 if it was not returned.
    """

    queries: tuple[str, ...]
    query_J: np.ndarray
    relevance_J: np.ndarray
    rank_J: np.ndarray

    @property
    def gain_J(self) -> np.ndarray:
        """What a judged document is worth: its relevance, or nothing if that is negative."""
        return np.maximum(self.relevance_J, 0)

    def per_query(self, values_J: np.ndarray) -> np.ndarray:
        """Sums of ``values_J`` by query, [Q]."""
        return np.bincount(self.query_J, weights=values_J, minlength=len(self.queries))

    def within(self, k: int) -> np.ndarray:
        """Whether each judged document is relevant and among the first ``k``, [J]."""
        return (self.rank_J >= 1) & (self.rank_J <= k) & (self.relevance_J > 0)


@dataclass(frozen=True)
class SearchResult:
    """What a searcher returned, best first: the dense form of a run.

    Args:
        queries: [Q] ids.
        documents: ids of the whole collection.
        index_QK: positions in ``documents``, -1 where fewer than K were returned.
        score_QK: float32.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    index_QK: np.ndarray
    score_QK: np.ndarray

    def ranks(self, qrels: Qrels) -> Ranks:
        """The ranks of judged documents; queries and documents that qrels name must be known here."""
        row = {query: number for number, query in enumerate(self.queries)}
        column = {document: number for number, document in enumerate(self.documents)}
        query_J = np.repeat(np.arange(len(qrels)), [len(judged) for judged in qrels.values()])
        row_J = np.asarray([row[query] for query, judged in qrels.items() for _ in judged], dtype=np.int64)
        wanted_J = np.asarray([column.get(name, -2) for judged in qrels.values() for name in judged], dtype=np.int64)
        relevance_J = np.asarray([value for judged in qrels.values() for value in judged.values()], dtype=np.int64)
        found_JK = self.index_QK[row_J] == wanted_J[:, None]
        rank_J = np.where(found_JK.any(axis=1), found_JK.argmax(axis=1) + 1, 0)
        return Ranks(tuple(qrels), query_J, relevance_J, rank_J)

    def first(self, k: int) -> SearchResult:
        """The first ``k`` of each query."""
        return replace(self, index_QK=self.index_QK[:, :k], score_QK=self.score_QK[:, :k])

    def run(self) -> dict[str, dict[str, float]]:
        """The same as nested dictionaries, as pytrec_eval reads them."""
        return {
            query: {self.documents[i]: float(s) for i, s in zip(index, score, strict=True) if i >= 0}
            for query, index, score in zip(self.queries, self.index_QK, self.score_QK, strict=True)
        }


def find_ranks(run: Run, qrels: Qrels, missing: Literal["zero", "skip"] = "zero") -> Ranks:
    """The ranks of all judged documents in a run.

    Args:
        run: scores of what was returned for each query; queries without judgements are not looked at.
        qrels: the judgements.
        missing: what a judged query that the run lacks scores: nothing, or it is left out as trec_eval does.

    Raises:
        UserError: if a score is not a number.
    """
    queries = tuple(query for query in qrels if missing == "zero" or query in run)
    query_J: list[int] = []
    relevance_J: list[int] = []
    rank_J: list[int] = []
    for number, query in enumerate(queries):
        ranks = _ranks(query, run.get(query, {}), qrels[query])
        query_J += [number] * len(ranks)
        relevance_J += qrels[query].values()
        rank_J += ranks
    return Ranks(queries, *(np.asarray(values, dtype=np.int64) for values in (query_J, relevance_J, rank_J)))


def _ranks(query: str, scores: Mapping[str, float], wanted: Mapping[str, int]) -> list[int]:
    returned = np.fromiter(scores.values(), dtype=np.float32, count=len(scores))
    if np.isnan(returned).any():
        raise UserError(f"run: query '{query}' has a score that is not a number")
    ranks = []
    for document in wanted:
        if document not in scores:
            ranks.append(0)
            continue
        score = np.float32(scores[document])
        ahead = np.count_nonzero(returned > score)
        if np.count_nonzero(tied := returned == score) > 1:
            ahead += sum(other > document for other, same in zip(scores, tied, strict=True) if same)
        ranks.append(int(ahead) + 1)
    return ranks


# --- one value per query, [Q] -----------------------------------------------------------------------------------------


def ndcg(ranks: Ranks, k: int) -> np.ndarray:
    """trec_eval's ``ndcg_cut``: the sum of rel / log2(rank + 1), over that of the best possible order.

    Args:
        ranks: of the judged documents.
        k: cut-off, for the ideal order too.
    """
    hits = ranks.within(k)
    gained = ranks.per_query(hits * ranks.gain_J / np.log2(np.maximum(ranks.rank_J, 1) + 1))
    order = np.lexsort((-ranks.gain_J, ranks.query_J))
    place = _place_in_run(ranks.query_J[order])
    ideal_J = np.where(place <= k, ranks.gain_J[order] / np.log2(place + 1), 0)
    ideal = np.bincount(ranks.query_J[order], weights=ideal_J, minlength=len(ranks.queries))
    return _ratio(gained, ideal)


def mrr(ranks: Ranks, k: int) -> np.ndarray:
    """Reciprocal rank of the first relevant document, 0 if it is not among the first ``k``."""
    best = np.zeros(len(ranks.queries))
    hits = ranks.within(k)
    np.maximum.at(best, ranks.query_J[hits], 1 / ranks.rank_J[hits])
    return best


def recall(ranks: Ranks, k: int) -> np.ndarray:
    """Share of the relevant documents that are among the first ``k``."""
    return _ratio(ranks.per_query(ranks.within(k)), ranks.per_query(ranks.relevance_J > 0))


def precision(ranks: Ranks, k: int) -> np.ndarray:
    """Share of the first ``k`` places held by relevant documents; places that were not filled count."""
    return ranks.per_query(ranks.within(k)) / k


def success(ranks: Ranks, k: int) -> np.ndarray:
    """Whether any relevant document is among the first ``k``."""
    return (mrr(ranks, k) > 0).astype(np.float64)


def average_precision(ranks: Ranks, k: int) -> np.ndarray:
    """trec_eval's ``map_cut``: precision at each hit, summed, over the number of all relevant documents."""
    hits = ranks.within(k)
    query, rank = ranks.query_J[hits], ranks.rank_J[hits]
    order = np.lexsort((rank, query))
    at_hit = _place_in_run(query[order]) / rank[order]
    total = np.bincount(query[order], weights=at_hit, minlength=len(ranks.queries))
    return _ratio(total, ranks.per_query(ranks.relevance_J > 0))


def _place_in_run(sorted_labels: np.ndarray) -> np.ndarray:
    """1-based place of each item within its stretch of equal labels."""
    starts = np.flatnonzero(np.diff(sorted_labels, prepend=-1))
    lengths = np.diff(starts, append=len(sorted_labels))
    return np.arange(len(sorted_labels)) - np.repeat(starts, lengths) + 1


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


METRICS: dict[str, Callable[[Ranks, int], np.ndarray]] = {
    "ndcg": ndcg,
    "mrr": mrr,
    "recall": recall,
    "precision": precision,
    "success": success,
    "map": average_precision,
}


# --- over groups of queries -------------------------------------------------------------------------------------------


def group_minima(values_Q: np.ndarray, groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """The worst value of each group; their mean is the Robustness score (arXiv 2402.14334, section 3.3)."""
    worst: dict[Hashable, float] = {}
    for value, group in zip(values_Q.tolist(), groups, strict=True):
        worst[group] = min(value, worst.get(group, value))
    return worst


def robustness(values_Q: np.ndarray, groups: Sequence[Hashable]) -> float:
    """Mean over groups of the worst value in the group; every group weighs the same, however large it is."""
    return float(np.mean(list(group_minima(values_Q, groups).values())))


def macro_mean(values_Q: np.ndarray, groups: Sequence[Hashable]) -> float:
    """Mean over groups of the mean value in the group."""
    labels = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    number_Q = np.asarray([labels[group] for group in groups])
    return float(np.mean(np.bincount(number_Q, weights=values_Q) / np.bincount(number_Q)))


def prefix_group(query: str) -> str:
    """The group that InstructIR's ids spell out: ``<query>_<n>`` belongs to ``<query>``, and any other id to itself."""
    stem, _, number = query.rpartition("_")
    return stem if stem and number.isdecimal() else query


def pairwise_mrr(rank_before: np.ndarray, rank_after: np.ndarray) -> np.ndarray:
    """p-MRR of single documents whose relevance ended when the instruction changed (arXiv 2403.15246, eq. 1).

    Args:
        rank_before: 1-based ranks under the original instruction.
        rank_after: the same under the changed one.

    Returns: near +1 where the document fell far, 0 where it stayed, near -1 where it rose.
    """
    before, after = np.asarray(rank_before, dtype=np.float64), np.asarray(rank_after, dtype=np.float64)
    return np.where(before >= after, after / before - 1, 1 - before / after)
