"""Ranking metrics as torchmetrics, gathered over batches and ranks; the rules are trec_eval's (ranks.py).

Feed a run and its judgements query by query or all at once, in the nested dictionaries that pytrec_eval reads. This
file only keeps one value per query; what the value is stands in metrics/retrieval/ranks.py.

Shape suffix: Q queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from metrics.retrieval.ranks import (
    METRICS,
    Qrels,
    Ranks,
    Run,
    average_precision,
    find_ranks,
    mrr,
    ndcg,
    pairwise_mrr,
    prefix_group,
    recall,
    robustness,
)
from text.errors import UserError

Missing = Literal["zero", "skip"]


class QueryMean(Metric):
    """Mean over queries of one value each; a query that several ranks or batches bring counts once.

    Args:
        k: cut-off.
        missing: a judged query without a run scores nothing (``zero``) or is left out (``skip``).
    """

    higher_is_better = True
    full_state_update = False
    values: list[Tensor]
    keys: list[Tensor]

    def __init__(self, k: int = 10, missing: Missing = "zero") -> None:
        super().__init__()
        if k < 1:
            raise UserError(f"a cut-off must be 1 or more, not {k}")
        self.k, self.missing = k, missing
        self.add_state("keys", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def score(self, ranks: Ranks) -> np.ndarray:
        """One value per query, [Q]."""
        raise TypeError(f"{type(self).__name__} has no score of its own: use NDCG, MRR, Recall, MAP or Robustness")

    def update(self, run: Run, qrels: Qrels) -> None:
        """Add queries.

        Args:
            run: query id -> document id -> score.
            qrels: query id -> document id -> relevance, of the queries to add.
        """
        ranks = find_ranks(run, qrels, self.missing)
        self.add(ranks.queries, self.score(ranks))

    def add(self, names: Sequence[str], values: np.ndarray) -> None:
        """Keep one value per name."""
        self.keys.append(_keys(names, self.device))
        self.values.append(torch.as_tensor(values, dtype=torch.float64, device=self.device))

    def unique(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the first occurrence of each query, and all values."""
        keys, values = dim_zero_cat(self.keys).cpu().numpy(), dim_zero_cat(self.values).cpu().numpy()
        return np.unique(keys, return_index=True)[1], values

    def compute(self) -> Tensor:
        """The mean, float64."""
        first, values = self.unique()
        return torch.tensor(values[first].mean() if len(first) else float("nan"), dtype=torch.float64)


class NDCG(QueryMean):
    """nDCG@k."""

    def score(self, ranks: Ranks) -> np.ndarray:
        """See `ndcg`."""
        return ndcg(ranks, self.k)


class MRR(QueryMean):
    """MRR@k."""

    def score(self, ranks: Ranks) -> np.ndarray:
        """See `mrr`."""
        return mrr(ranks, self.k)


class Recall(QueryMean):
    """Recall@k."""

    def score(self, ranks: Ranks) -> np.ndarray:
        """See `recall`."""
        return recall(ranks, self.k)


class MAP(QueryMean):
    """MAP@k."""

    def score(self, ranks: Ranks) -> np.ndarray:
        """See `average_precision`."""
        return average_precision(ranks, self.k)


class Robustness(QueryMean):
    """Mean over groups of the worst query in each (arXiv 2402.14334, section 3.3).

    Args:
        k: cut-off.
        metric: what is measured per query: ndcg, mrr, recall, map, precision or success.
        missing: a judged query without a run scores nothing (``zero``), or is left out as the official code does.
    """

    groups: list[Tensor]

    def __init__(self, k: int = 10, metric: str = "ndcg", missing: Missing = "zero") -> None:
        super().__init__(k, missing)
        if metric not in METRICS:
            raise UserError(f"'{metric}' is not a ranking metric: {', '.join(METRICS)}")
        self.metric = metric
        self.add_state("groups", default=[], dist_reduce_fx="cat")

    def score(self, ranks: Ranks) -> np.ndarray:
        """The metric that is made robust."""
        return METRICS[self.metric](ranks, self.k)

    def update(self, run: Run, qrels: Qrels, groups: Mapping[str, str] | None = None) -> None:  # type: ignore[override]
        """Add queries.

        Args:
            run: query id -> document id -> score.
            qrels: query id -> document id -> relevance, of the queries to add.
            groups: query id -> group; left out, ids of the form ``<group>_<n>`` say it.
        """
        ranks = find_ranks(run, qrels, self.missing)
        self.add(ranks.queries, self.score(ranks))
        named = [prefix_group(query) if groups is None else groups[query] for query in ranks.queries]
        self.groups.append(_keys(named, self.device))

    def compute(self) -> Tensor:
        """Robustness@k, float64."""
        first, values = self.unique()
        groups = dim_zero_cat(self.groups).cpu().numpy()
        return torch.tensor(robustness(values[first], groups[first].tolist()), dtype=torch.float64)


class PairwiseMRR(QueryMean):
    """p-MRR: how far documents fall whose relevance ended when the instruction changed (arXiv 2403.15246)."""

    def __init__(self) -> None:
        super().__init__()

    def update(self, original: Run, changed: Run, ended: Mapping[str, Sequence[str]]) -> None:  # type: ignore[override]
        """Add queries.

        Args:
            original: the run under the original instructions.
            changed: the run under the changed ones, same query ids.
            ended: query id -> the documents that were relevant before and are not after. A document that was not
                returned ranks behind the list.
        """
        watched = {query: dict.fromkeys(documents, 1) for query, documents in ended.items()}
        ranks = []
        for run in (original, changed):
            found = find_ranks(run, watched)
            behind = np.asarray([len(run.get(query, ())) + 1 for query in found.queries], dtype=np.int64)
            ranks.append(np.where(found.rank_J > 0, found.rank_J, behind[found.query_J]))
        total = found.per_query(pairwise_mrr(*ranks))
        self.add(found.queries, total / np.maximum(found.per_query(np.ones(len(found.query_J))), 1))


def _keys(names: Sequence[str], device: torch.device) -> Tensor:
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.from_numpy(np.frombuffer(digests, dtype=np.int64).copy()).to(device)
