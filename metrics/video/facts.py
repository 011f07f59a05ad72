"""VidFactScore: how many facts of a summary the reference supports, and the other way round (pegasus-1-eval).

Precision and recall are means over videos of the share of their verdicts that are yes; F1 is the harmonic mean of the
two means, not the mean of the videos' F1. A video without facts of the reference is left out; one without facts that
were told has a precision of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from metrics.intervals import cluster_bootstrap
from metrics.tables import interval, section

Reading = Literal["official", "lenient"]
RESAMPLES = 2000


class Verdicts(NamedTuple):
    """What a judge said of a video's facts, as it wrote it.

    Args:
        video: the video.
        precision: of each fact that was told.
        recall: of each fact of the reference.
    """

    video: str
    precision: Sequence[str]
    recall: Sequence[str]


@dataclass(frozen=True)
class FactReport:
    """Scores in percent.

    Args:
        scores: ``precision``, ``recall`` and ``f1`` of the means, ``f1_by_video``; ``precision_pooled`` and
            ``recall_pooled`` over all facts; value, low and high of each.
        videos: that count.
        left_out: videos whose reference has no facts.
        unread: verdicts that are neither yes nor no, as they are read.
    """

    scores: dict[str, dict[str, float]]
    videos: int
    left_out: int
    unread: int

    @property
    def scalars(self) -> dict[str, float]:
        """The values."""
        told = {name: found["value"] for name, found in self.scores.items()}
        return told | {"videos": float(self.videos), "left_out": float(self.left_out), "unread": float(self.unread)}

    @property
    def text(self) -> str:
        """A table."""
        told = f"{self.videos:,} videos; {self.left_out:,} are left out, because their reference has no facts; "
        told += f"{self.unread:,} verdicts are neither yes nor no, and count as no."
        rows = [[name, interval(found, 2)] for name, found in self.scores.items()]
        return section("VidFactScore, %, with 95 % intervals over videos", told, ["", "score"], rows)


def fact_report(verdicts: Sequence[Verdicts], reading: Reading = "official", seed: int = 0) -> FactReport:
    """Scores of summaries.

    Args:
        verdicts: of at least one video.
        reading: ``official`` counts what is "yes" in lower case; ``lenient`` also takes a final point.
        seed: of the bootstrap.
    """
    kept = [one for one in verdicts if one.recall]
    yes = [(_yes(one.precision, reading), _yes(one.recall, reading)) for one in kept]
    shares = np.array([[sum(told) / max(len(told), 1), sum(known) / len(known)] for told, known in yes]).reshape(-1, 2)
    names = [one.video for one in kept]
    counts = np.array([[sum(told), len(told), sum(known), len(known)] for told, known in yes], float).reshape(-1, 4)

    def measured(values: np.ndarray, statistic: object) -> dict[str, float]:
        found = cluster_bootstrap(values, names, statistic, resamples=RESAMPLES, seed=seed)  # type: ignore[arg-type]
        return {"value": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}

    scores = {
        "precision": measured(shares, lambda v, w: _means(v, w)[:, 0]),
        "recall": measured(shares, lambda v, w: _means(v, w)[:, 1]),
        "f1": measured(shares, lambda v, w: harmonic(*_means(v, w).T)),
        "f1_by_video": measured(harmonic(*shares.T)[:, None], lambda v, w: _means(v, w)[:, 0]),
        "precision_pooled": measured(counts, lambda v, w: _pooled(v, w, 0)),
        "recall_pooled": measured(counts, lambda v, w: _pooled(v, w, 2)),
    }
    texts = [text for one in kept for text in (*one.precision, *one.recall)]
    unread = sum(_read(text, reading) not in ("yes", "no") for text in texts)
    return FactReport(scores, len(kept), len(verdicts) - len(kept), unread)


def harmonic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The harmonic mean; 0 where both are 0."""
    total = one + other
    return np.divide(2 * one * other, total, out=np.zeros_like(total), where=total > 0)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(1, keepdims=True)


def _pooled(values: np.ndarray, weights: np.ndarray, at: int) -> np.ndarray:
    return weights @ values[:, at] / np.maximum(weights @ values[:, at + 1], 1)


def _yes(verdicts: Sequence[str], reading: Reading) -> list[bool]:
    return [_read(text, reading) == "yes" for text in verdicts]


def _read(text: str, reading: Reading) -> str:
    said = text.strip().lower()
    return said.rstrip(".!") if reading == "lenient" else said
