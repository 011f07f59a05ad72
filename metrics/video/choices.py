"""Accuracy of answers about videos, by aspect, as TempCompass reports it (arXiv 2403.00476, section 4).

An aspect's accuracy is the mean over its questions, and the average is over all questions, not over aspects. An answer
that cannot be read is wrong. Intervals are over videos: questions about one are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metrics.intervals import cluster_bootstrap
from metrics.tables import interval, section
from text.video.choices import Form

RESAMPLES = 2000


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question whose answer was read.

    Args:
        name: of the question.
        video: which it is about.
        form: of the question.
        right: whether it was answered rightly; None if the answer could not be read.
        aspect, fine_aspect: of the question.
        official: 1 or 0 by whoever published the prediction.
    """

    name: str
    video: str
    form: Form | Literal["captioning"]
    right: bool | None
    aspect: str | None = None
    fine_aspect: str | None = None
    official: int | None = None


@dataclass(frozen=True)
class ChoiceReport:
    """Accuracies in percent, by name: ``average``, ``aspect/<aspect>``, ``fine/<aspect>``, ``form/<form>``.

    With several aspects also ``average_of_aspects``: the mean of theirs, as MVBench takes that of its tasks.

    Args:
        accuracy: value, low and high of each.
        counts: questions of each.
        matched: share of answers that could be read, percent.
        agreement: share of official ratings that are ours, percent; None without any.
    """

    accuracy: dict[str, dict[str, float]]
    counts: dict[str, int]
    matched: float
    agreement: float | None

    @property
    def scalars(self) -> dict[str, float]:
        """The values."""
        told = {name: found["value"] for name, found in self.accuracy.items()} | {"matched": self.matched}
        return told | ({} if self.agreement is None else {"agreement": self.agreement})

    @property
    def text(self) -> str:
        """A table."""
        rows = [[name, str(self.counts[name]), interval(found, 1)] for name, found in self.accuracy.items()]
        told = f"{self.matched:.1f} % of the answers can be read by the rules; those that cannot are wrong."
        if self.agreement is not None:
            told += f" {self.agreement:.2f} % of the official ratings are those of the rules."
        return section("Accuracy, %, with 95 % intervals over videos", told, ["", "questions", "accuracy"], rows)


def choice_report(answered: Sequence[AnsweredQuestion], seed: int = 0) -> ChoiceReport:
    """Accuracies of answers.

    Args:
        answered: at least one.
        seed: of the bootstrap.
    """
    right = np.array([bool(one.right) for one in answered], float)
    groups: dict[str, list[int]] = {"average": list(range(len(answered)))}
    for number, one in enumerate(answered):
        for kind, label in (("aspect", one.aspect), ("fine", one.fine_aspect), ("form", one.form)):
            if label:
                groups.setdefault(f"{kind}/{label}", []).append(number)
    names = ["average", *sorted(name for name in groups if name != "average")]
    found = {name: accuracy(right[groups[name]], [answered[n].video for n in groups[name]], seed) for name in names}
    aspects = [groups[name] for name in names if name.startswith("aspect/")]
    if len(aspects) > 1:
        places = [place for group in aspects for place in group]
        groups["average_of_aspects"] = places
        found["average_of_aspects"] = _of_aspects(right, aspects, [one.video for one in answered], seed)
    rated = [(one.official, bool(one.right)) for one in answered if one.official is not None]
    return ChoiceReport(
        found,
        {name: len(groups[name]) for name in found},
        100 * float(np.mean([one.right is not None for one in answered])),
        100 * float(np.mean([official == ours for official, ours in rated])) if rated else None,
    )


def _of_aspects(right: np.ndarray, aspects: Sequence[list[int]], videos: Sequence[str], seed: int) -> dict[str, Any]:
    """The mean of the aspects' means; in a resample, of those that have a question in it."""

    def statistic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        counts = np.stack([weights[:, group].sum(1) for group in aspects], 1)
        sums = np.stack([weights[:, group] @ values[group] for group in aspects], 1)
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        return means.sum(1) / np.maximum((counts > 0).sum(1), 1)

    found = cluster_bootstrap(right, videos, statistic, resamples=RESAMPLES, seed=seed)
    return {"value": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}


def accuracy(values: np.ndarray, videos: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """A mean in percent with its interval over videos."""
    found = cluster_bootstrap(values, videos, resamples=RESAMPLES, seed=seed)
    return {"value": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
