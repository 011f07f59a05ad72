"""VidFactScore: how many facts of a summary the reference supports, and the other way round (pegasus-1-eval).

Precision and recall are means over videos of the share of their verdicts that are yes; F1 is the harmonic mean of the
two means, not the mean of the videos' F1. A video without facts of the reference is left out; one without facts that
were told has a precision and a recall of 0, whatever a judge said of the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        verdicts: of at least one video that has a fact of its reference.
        reading: ``official`` counts what is "yes" in lower case; ``lenient`` also takes a final point.
        seed: of the bootstrap.
    """
    kept = [one for one in verdicts if one.recall]
    yes, shares = _read_all(kept, reading)
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


def fact_gains(
    verdicts: Sequence[Verdicts],
    controls: Mapping[str, Sequence[Verdicts]],
    reading: Reading = "official",
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 less those of summaries of the same videos with frames in another order, paired.

    Args:
        verdicts: about summaries of frames in order.
        controls: about others, by name; of the same videos in any order.
        reading: see `fact_report`.
        seed: of the bootstrap.

    Returns: points by ``<control>/<score>``: value, low, high over videos.

    Raises:
        ValueError: for a control about other videos.
    """
    kept, gains = [one for one in verdicts if one.recall], {}
    for control, others in controls.items():
        of_video = {one.video: one for one in others}
        if of_video.keys() != {one.video for one in verdicts} or len(others) != len(verdicts):
            raise ValueError(f"control '{control}' is about other videos")
        both = np.hstack([_read_all(part, reading)[1] for part in (kept, [of_video[one.video] for one in kept])])

        def gain(score: str, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
            means = _means(values, weights)
            one, other = (
                {"precision": part[:, 0], "recall": part[:, 1], "f1": harmonic(*part.T)}[score]
                for part in (means[:, :2], means[:, 2:])
            )
            return one - other

        for score in ("precision", "recall", "f1"):
            found = cluster_bootstrap(
                both, [one.video for one in kept], partial(gain, score), resamples=RESAMPLES, seed=seed
            )
            gains[f"{control}/{score}"] = {
                "value": 100 * found.mean,
                "low": 100 * found.low,
                "high": 100 * found.high,
            }
    return gains


def harmonic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The harmonic mean; 0 where both are 0."""
    total = one + other
    return np.divide(2 * one * other, total, out=np.zeros_like(total), where=total > 0)


def _read_all(kept: Sequence[Verdicts], reading: Reading) -> tuple[list[tuple[list[bool], list[bool]]], np.ndarray]:
    """What was said of the facts of each video, told and known, and the shares that are yes [V, 2]."""
    yes = [
        (_yes(one.precision, reading), [bool(one.precision) and known for known in _yes(one.recall, reading)])
        for one in kept
    ]
    shares = [[sum(told) / max(len(told), 1), sum(known) / max(len(known), 1)] for told, known in yes]
    return yes, np.array(shares).reshape(-1, 2)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(1, keepdims=True)


def _pooled(values: np.ndarray, weights: np.ndarray, at: int) -> np.ndarray:
    return weights @ values[:, at] / np.maximum(weights @ values[:, at + 1], 1)


def _yes(verdicts: Sequence[str], reading: Reading) -> list[bool]:
    return [_read(text, reading) == "yes" for text in verdicts]


def _read(text: str, reading: Reading) -> str:
    said = text.strip().lower()
    return said.rstrip(".!") if reading == "lenient" else said
