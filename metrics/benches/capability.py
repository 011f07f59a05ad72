"""Scores of a benchmark by capability and task, as BiGGen Bench sums them up (arXiv 2406.05761).

A record is one instance with its score from 1 to 5. A score that is None was asked for and could not be read: such ones
are counted, and never enter a mean unless that is asked for. A record without the key ``score`` was not judged at all.
This file knows scores. It does not know who answered or judged.

Shape suffix: P parsed records.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from statistics import median_low
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from metrics.intervals import Interval, collapsed, stratified_interval
from metrics.judging.correlation import kendall, pearson
from metrics.means import fraction, mean
from text.errors import UserError
from text.judging.biggen import CAPABILITIES, Place, choose

Impute = Literal["none", "1"]
SelfConsistency = Literal["mean", "majority", "median"]
Record = Mapping[str, Any]

OVERALL = ("macro", "micro", "task_macro")
LOWEST, HIGHEST = 1.0, 5.0


def self_consistent(ratings: Iterable[float | None], how: SelfConsistency = "mean") -> float | None:
    """One score from several ratings of an answer, or of several judges: those that could be read, None without any.

    Args:
        ratings: of one answer.
        how: ``mean``; ``majority``, the most frequent one, and the lower median of those that are equally frequent; or
            ``median``.
    """
    read = [rating for rating in ratings if rating is not None]
    if not read:
        return None
    if how == "majority":
        counts = Counter(read)
        return float(median_low(rating for rating, count in counts.items() if count == max(counts.values())))
    return mean(read) if how == "mean" else float(np.median(read))


def aggregate(
    records: Sequence[Record], subset: str = "all", *, impute: Impute = "none", seed: int = 0
) -> dict[str, Any]:
    """The means that are reported, without intervals. They are exact, each rounded once: models that tie are equal.

    Args:
        records: mappings with ``capability``, ``task`` and ``score``; other keys are read over.
        subset: see `text.judging.biggen.choose`.
        impute: what counts for a score that could not be read: nothing, or the lowest score.
        seed: of a drawn subset.

    Returns: ``macro``, the mean over the means of capabilities, which the official report calls overall; ``micro``, the
        mean over instances; ``task_macro``, the mean over the means of tasks; ``per_capability`` and ``per_task``
        (``<capability>/<task>``), means of those that have a score, and how many scores stand behind them in
        ``n_per_capability`` and ``n_per_task``; ``expected``, ``parsed``, ``null`` and ``absent`` records, ``coverage``
        (parsed of expected) and ``parse_failure_rate`` (null of judged). Means over nothing are NaN.
    """
    chosen = select(records, subset, seed)
    judged = [record for record in chosen if "score" in record]
    nulls = sum(record["score"] is None for record in judged)
    values = scores_of(chosen, impute)
    by_capability = _grouped(values, lambda place: place.capability)
    by_task = _grouped(values, lambda place: f"{place.capability}/{place.task}")
    means = {name: statistics.mean(scores) for name, scores in by_capability.items()}
    task_means = {name: statistics.mean(scores) for name, scores in by_task.items()}
    return {
        "macro": mean(means.values()),
        "micro": mean(score for _, score in values),
        "task_macro": mean(task_means.values()),
        "per_capability": {name: float(exact) for name, exact in means.items()},
        "per_task": {name: float(exact) for name, exact in task_means.items()},
        "n_per_capability": {name: len(scores) for name, scores in by_capability.items()},
        "n_per_task": {name: len(scores) for name, scores in by_task.items()},
        "expected": len(chosen),
        "parsed": len(judged) - nulls,
        "null": nulls,
        "absent": len(chosen) - len(judged),
        "coverage": (len(judged) - nulls) / len(chosen),
        "parse_failure_rate": nulls / len(judged) if judged else math.nan,
    }


def select(records: Sequence[Record], subset: str, seed: int = 0) -> list[Record]:
    """The records of a subset."""
    return [records[number] for number in choose([place_of(record) for record in records], subset, seed)]


def place_of(record: Record) -> Place:
    """Where a record belongs."""
    return Place(record["capability"], record.get("task", ""))


def scores_of(records: Sequence[Record], impute: Impute = "none") -> list[tuple[Place, float]]:
    """Every score that counts, with its place."""
    if impute not in ("none", "1"):
        raise UserError(f"impute is {impute!r}: it must be none or 1 (in quotes)")
    values = [(place_of(r), r["score"]) for r in records if "score" in r]
    instead = None if impute == "none" else LOWEST
    counted = [(place, instead if score is None else float(score)) for place, score in values]
    return [(place, score) for place, score in counted if score is not None]


def intervals(records: Sequence[Record], *, impute: Impute = "none") -> dict[str, Interval]:
    """The means of `aggregate` with 95 % intervals: tasks are strata, their instances are what was drawn.

    Args:
        records: see `aggregate`.
        impute: see `aggregate`.

    Returns: by name: macro, micro, task_macro, every ``<capability>`` and every ``<capability>/<task>``. One score does
        not tell the spread of its task: such tasks are taken together. The bounds of one score by itself are NaN.
    """
    values = scores_of(records, impute)
    found = _intervals([score for _, score in values], [place for place, _ in values])
    return {name: interval.within(LOWEST, HIGHEST) for name, interval in found.items()}


def _intervals(values: Sequence[float], places: Sequence[Place]) -> dict[str, Interval]:
    values_P, strata = np.asarray(values, dtype=np.float64), _collapsed(places)
    found = {}
    for name, coefficients_P in _coefficients(places).items():
        used = np.flatnonzero(coefficients_P)
        found[name] = stratified_interval(values_P[used], coefficients_P[used], [strata[number] for number in used])
    return found


def _collapsed(places: Sequence[Place]) -> list[Hashable]:
    """Tasks as strata; those of one instance are taken together, within their capability where there are others."""
    strata: list[Hashable] = [None] * len(places)
    for capability in dict.fromkeys(place.capability for place in places):
        own = [number for number, place in enumerate(places) if place.capability == capability]
        for number, label in zip(own, collapsed([places[number] for number in own]), strict=True):
            strata[number] = label
    return collapsed(strata)


def _coefficients(places: Sequence[Place]) -> dict[str, np.ndarray]:
    """How much each score counts in each mean, [P]."""
    if not places:
        return {}
    capabilities = np.array([place.capability for place in places])
    tasks = np.array([f"{place.capability}/{place.task}" for place in places])
    of: dict[str, np.ndarray] = {}
    for labels in (capabilities, tasks):
        for label in dict.fromkeys(labels.tolist()):
            of[label] = (labels == label) / (labels == label).sum()
    overall = {
        "macro": np.mean([of[name] for name in dict.fromkeys(capabilities.tolist())], axis=0),
        "micro": np.full(len(places), 1 / len(places)),
        "task_macro": np.mean([of[name] for name in dict.fromkeys(tasks.tolist())], axis=0),
    }
    return overall | of


def delta(records: Sequence[Record], others: Sequence[Record]) -> dict[str, Any]:
    """How much better one model is than another on the instances for which both have a score.

    Args:
        records: of the model, with ``id`` beside what `aggregate` reads.
        others: of the one it is compared with.

    Returns: ``intervals``, of the differences, named as in `intervals`; ``wins``, ``ties``, ``losses`` and their sum
        ``n``.

    Raises:
        UserError: if they have no instance in common.
    """
    theirs = {record["id"]: record["score"] for record in others if record.get("score") is not None}
    common = [record for record in records if record.get("score") is not None and record["id"] in theirs]
    if not common:
        raise UserError("no instance has a score of both models: are they of the same benchmark?")
    gains = [fraction(record["score"]) - fraction(theirs[record["id"]]) for record in common]
    return {
        "intervals": {
            name: interval.within(LOWEST - HIGHEST, HIGHEST - LOWEST)
            for name, interval in _intervals([*map(float, gains)], [place_of(record) for record in common]).items()
        },
        "wins": sum(gain > 0 for gain in gains),
        "ties": sum(gain == 0 for gain in gains),
        "losses": sum(gain < 0 for gain in gains),
        "n": len(gains),
    }


def length_bias(records: Sequence[Record]) -> dict[str, float]:
    """Pearson correlation of score and characters of the response.

    Args:
        records: see `aggregate`, with ``response``.

    Returns: of all (``""``) and by capability; NaN where scores or lengths are all the same.
    """
    known = [record for record in records if record.get("score") is not None and record.get("response") is not None]
    groups: dict[str, list[Record]] = {"": known}
    for record in known:
        groups.setdefault(record["capability"], []).append(record)
    return {
        name: correlation([r["score"] for r in group], [len(r["response"]) for r in group])
        for name, group in groups.items()
    }


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's, NaN where one of them is constant or there are fewer than two."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return math.nan
    return float(pearson(torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)))


def rank_agreement(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Kendall's tau-b between the ranks that two evaluators give to models, by their macro scores.

    Args:
        one: score of each model by an evaluator.
        other: by another one; models that only one of them scored do not count.
    """
    models = [model for model in one if model in other]
    given = [[scores[model] for model in models] for scores in (one, other)]
    if any(len(set(scores)) < 2 for scores in given):
        return math.nan
    return float(kendall(*(torch.tensor(scores, dtype=torch.float64) for scores in given)))


class CapabilityScore(Metric):
    """The means by capability over batches and ranks; an instance that several of them bring counts once.

    Args:
        capabilities: all that ids may begin with.
        impute: see `aggregate`.
    """

    higher_is_better = True
    full_state_update = False
    keys: list[Tensor]
    places: list[Tensor]
    scores: list[Tensor]

    def __init__(self, capabilities: Sequence[str] = CAPABILITIES, impute: Impute = "none") -> None:
        super().__init__()
        self.capabilities, self.impute = sorted(capabilities, key=len, reverse=True), impute
        for state in ("keys", "places", "scores"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, ids: Sequence[str], scores: Sequence[float | None]) -> None:
        """Add instances.

        Args:
            ids: ``<capability>_<task>_<instance_idx>``.
            scores: of each, None where it could not be read.

        Raises:
            UserError: for an id of no capability.
        """
        places = [self._place(name) for name in ids]
        keys = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True) for name in ids]
        read = [math.nan if score is None else float(score) for score in scores]
        self.keys.append(torch.tensor(keys, dtype=torch.int64, device=self.device))
        self.places.append(torch.tensor(places, dtype=torch.int64, device=self.device))
        self.scores.append(torch.tensor(read, dtype=torch.float64, device=self.device))

    def _place(self, name: str) -> int:
        for number, capability in enumerate(self.capabilities):
            if name.startswith(f"{capability}_"):
                return number
        raise UserError(f"'{name}' begins with none of the capabilities {', '.join(sorted(self.capabilities))}")

    def compute(self) -> dict[str, float]:
        """``macro``, ``micro``, ``coverage``, ``parse_failure_rate`` and every capability that has a score."""
        keys, places, scores = (
            (dim_zero_cat(state).cpu().numpy() if len(state) else np.zeros(0))
            for state in (self.keys, self.places, self.scores)
        )
        first = np.unique(keys, return_index=True)[1]
        records = [
            {"capability": self.capabilities[int(place)], "score": None if math.isnan(score) else float(score)}
            for place, score in zip(places[first], scores[first], strict=True)
        ]
        if not records:
            return {name: math.nan for name in ("macro", "micro", "coverage", "parse_failure_rate")}
        found = aggregate(records, impute=self.impute)
        overall = {name: found[name] for name in ("macro", "micro", "coverage", "parse_failure_rate")}
        return overall | found["per_capability"]


def _grouped(values: Sequence[tuple[Place, float]], label: Any) -> dict[str, list[Fraction]]:
    groups: dict[str, list[Fraction]] = {}
    for place, score in values:
        groups.setdefault(label(place), []).append(fraction(score))
    return groups
