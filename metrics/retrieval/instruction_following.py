"""Does a retriever follow the instruction? What it could score without reading it, and how far siblings move apart.

Siblings are queries of one topic that differ in their instruction alone; their targets are each other's hard negatives.
A retriever that finds the topic perfectly and ignores the instruction returns the topic's documents in one fixed order:
the scores it would get are the instruction-blind ceiling, and what exceeds them was won by reading the instruction.

Shape suffixes: Q queries, K returned documents.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from metrics.retrieval.ranks import SearchResult, macro_mean, pairwise_mrr


@dataclass(frozen=True)
class Ceiling:
    """Scores of a perfect retriever that does not read instructions; NaN where no closed form exists.

    Args:
        ndcg: mean over queries.
        macro_ndcg: mean over groups of the group's mean.
        robustness: mean over groups of the expected worst query.
    """

    ndcg: float
    macro_ndcg: float
    robustness: float


def blind_ceiling(
    relevant: Sequence[frozenset[str]], candidates: Sequence[int], groups: Sequence[Hashable], k: int = 10
) -> Ceiling:
    """Expected nDCG@k and Robustness@k when a topic's documents come first, in one random order for all its queries.

    With one target per query and all g siblings in a group: (1/g) sum_{r <= g} 1/log2(r+1), and 1/log2(g+1).

    Args:
        relevant: [Q] the relevant documents of each query.
        candidates: [Q] how many documents the query's topic has in the collection.
        groups: [Q] over which Robustness takes the minimum.
        k: cut-off.
    """
    ndcg_Q = np.asarray([_blind_ndcg(len(own), g, k) for own, g in zip(relevant, candidates, strict=True)])
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    worst = [
        _blind_worst([relevant[i] for i in numbers], candidates[numbers[0]], float(ndcg_Q[numbers[0]]), k)
        for numbers in members.values()
    ]
    return Ceiling(float(ndcg_Q.mean()), macro_mean(ndcg_Q, groups), float(np.mean(worst)))


def _discount(rank: int, k: int) -> float:
    return 1 / math.log2(rank + 1) if rank <= k else 0.0


def _blind_ndcg(m: int, g: int, k: int) -> float:
    """M relevant among g in random order: each of the first g places is relevant with probability m / g."""
    return m / g * sum(_discount(r, k) for r in range(1, g + 1)) / sum(_discount(r, k) for r in range(1, m + 1))


def _blind_worst(relevant: list[frozenset[str]], g: int, ndcg: float, k: int) -> float:
    distinct = set(relevant)
    if len(distinct) == 1:
        return ndcg
    if any(len(own) > 1 for own in distinct):
        return math.nan
    n = len(distinct)  # the last of n targets among g places stands at r with probability C(r-1, n-1) / C(g, n)
    return sum(math.comb(r - 1, n - 1) / math.comb(g, n) * _discount(r, k) for r in range(n, g + 1))


@dataclass(frozen=True)
class SiblingScores:
    """How the results of siblings differ; NaN where a task has no siblings to compare.

    Args:
        accuracy: share of queries whose own target outranks every other document of the topic.
        pmrr: p-MRR of a query's target when the instruction becomes a sibling's: 1 if it falls far, 0 if it stays.
        churn: 1 - mean Jaccard overlap of the first ten results of two siblings.
    """

    accuracy: float
    pmrr: float
    churn: float


def sibling_scores(
    result: SearchResult,
    relevant: Sequence[frozenset[str]],
    candidates: Sequence[frozenset[str]],
    topics: Sequence[Hashable],
) -> SiblingScores:
    """Compare the results of queries that share a topic.

    Args:
        result: of a search, its queries in the order of the other arguments.
        relevant: [Q] the relevant documents of each query.
        candidates: [Q] all documents of each query's topic.
        topics: [Q] labels.
    """
    watched = {query: dict.fromkeys(sorted(docs), 1) for query, docs in zip(result.queries, candidates, strict=True)}
    ranks = result.ranks(watched)
    behind = result.index_QK.shape[1] + 1
    found = np.split(
        np.where(ranks.rank_J > 0, ranks.rank_J, behind), np.cumsum([len(d) for d in watched.values()])[:-1]
    )
    place = [dict(zip(docs, row.tolist(), strict=True)) for docs, row in zip(watched.values(), found, strict=True)]

    accuracy, falls, overlaps = [], [], []
    for own, rank in zip(relevant, place, strict=True):
        others = [r for document, r in rank.items() if document not in own]
        if others:
            accuracy.append(min(rank[document] for document in own) < min(others))
    for members in _by_label(topics):
        tops = {i: set(result.index_QK[i, :10].tolist()) - {-1} for i in members}
        overlaps += [len(tops[i] & tops[j]) / max(len(tops[i] | tops[j]), 1) for i, j in combinations(members, 2)]
        for i, j in permutations(members, 2):
            falls += [(i, place[i][target], place[j][target]) for target in own_only(relevant[i], relevant[j])]
    return SiblingScores(
        accuracy=float(np.mean(accuracy)) if accuracy else math.nan,
        pmrr=_mean_by_query(falls) if falls else math.nan,
        churn=1 - float(np.mean(overlaps)) if overlaps else math.nan,
    )


def own_only(own: frozenset[str], others: frozenset[str]) -> list[str]:
    """Documents that are relevant under one instruction and not under the other."""
    return sorted(own - others)


def _by_label(labels: Sequence[Hashable]) -> Iterable[list[int]]:
    members: dict[Hashable, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    return members.values()


def _mean_by_query(falls: list[tuple[int, int, int]]) -> float:
    query, before, after = np.asarray(falls).T
    return macro_mean(pairwise_mrr(before, after), query.tolist())
