"""Means of judged answers about videos, axis by axis, as Video-ChatGPT reports them (arXiv 2306.05424, table 2).

A verdict that could not be read has no score and is in no mean; it is counted, and a second mean takes it for the
lowest score. Intervals are over videos. What order is worth is the difference to a control over the answers that have
a score in both. It does not know who judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrics.benches.multifaceted import HIGHEST, LOWEST
from metrics.intervals import Interval, cluster_bootstrap
from metrics.judging.unread import Unread, examples, share_read
from metrics.tables import interval, section
from metrics.video.report import VideoReport

RESAMPLES = 2000
RIGHT = 4
"""The score of correctness from which an answer is right: its main claims are true."""


class AxisScore(NamedTuple):
    """What an answer scored on an axis.

    Args:
        name: of what was asked.
        video: that it is about.
        axis: by which it was judged.
        score: from 1 to 5; None if no verdict could be read.
        group: "summary", or "" for questions.
    """

    name: str
    video: str
    axis: str
    score: float | None
    group: str = ""

    @property
    def label(self) -> str:
        """The axis, after the group."""
        return f"{self.group}/{self.axis}" if self.group else self.axis


def axes_report(
    scores: Sequence[AxisScore],
    controls: Mapping[str, Sequence[AxisScore]] | None = None,
    unread: Sequence[Unread] = (),
    empty: int = 0,
    seed: int = 0,
) -> VideoReport:
    """Means over answers, by axis.

    Scalars: ``<axis>``, of verdicts that could be read (NaN without any); ``<axis>/unread``, how many could not;
    ``<axis>/unread_as_lowest``; ``average``, over axes. Those of summaries are ``summary/<axis>`` and so on.
    ``accuracy`` of questions, in percent, is the share whose correctness is `RIGHT` or more; an unread one is wrong.
    With controls also ``<control>/<axis>`` and ``gain/<control>/<axis>``, in points of the scale.

    Args:
        scores: of at least one answer.
        controls: of the same answers in the same order, to frames in another order, by name.
        unread: verdicts that could not be read.
        empty: answers without a word; they score 1.
        seed: of bootstraps.
    """
    scalars, rows = dict[str, float](), list[list[str]]()
    labels = list(dict.fromkeys(one.label for one in scores))
    for label in labels:
        given = [one for one in scores if one.label == label]
        found = _mean([one.score for one in given], given, seed)
        missing = sum(one.score is None for one in given)
        scalars |= {label: found.mean, f"{label}/unread": float(missing)}
        scalars[f"{label}/unread_as_lowest"] = float(
            np.mean([LOWEST if one.score is None else one.score for one in given])
        )
        rows.append([label, str(len(given)), _told(found), str(missing), f"{scalars[f'{label}/unread_as_lowest']:.2f}"])
    scalars |= _averages(scalars, labels) | _accuracy(scores)
    head = ["axis", "answers", "score", "unread", "with these as 1"]
    told = f"{share_read(len(scores), int(sum(scalars[f'{label}/unread'] for label in labels)))} "
    told += f"{empty:,} answers are empty, and score 1. The scale is 1 to 5; published scores are from 0 to 5."
    text = section("Judged answers, with 95 % intervals over videos", told, head, rows)
    for name, others in (controls or {}).items():
        gains, table = _gains(name, scores, others, seed)
        scalars |= gains | {f"{name}/{key}": value for key, value in _accuracy(others).items()}
        text += "\n\n" + section(f"What order is worth, against {name}", "", ["axis", "control", "gain"], table)
    text = "\n\n".join(part for part in (text, examples(unread)) if part)
    return VideoReport(scalars, text, [one._asdict() for one in scores])


def _gains(
    name: str, scores: Sequence[AxisScore], others: Sequence[AxisScore], seed: int
) -> tuple[dict[str, float], list[list[str]]]:
    if [(one.name, one.axis) for one in scores] != [(other.name, other.axis) for other in others]:
        raise ValueError(f"control '{name}' answers other questions")
    scalars, rows = dict[str, float](), []
    for label in dict.fromkeys(one.label for one in scores):
        pairs = [(one, other) for one, other in zip(scores, others, strict=True) if one.label == label]
        control = _mean([other.score for _, other in pairs], [other for _, other in pairs], seed)
        both = [
            (one.score - other.score, one.video)
            for one, other in pairs
            if one.score is not None and other.score is not None
        ]
        differences = np.array([difference for difference, _ in both], np.float64)
        gain = cluster_bootstrap(differences, [video for _, video in both], resamples=RESAMPLES, seed=seed)
        scalars |= {f"{name}/{label}": control.mean, f"gain/{name}/{label}": gain.mean}
        rows.append([label, _told(control), _told(gain)])
    return scalars, rows


def _averages(scalars: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    """Over the axes of questions, and over those of summaries."""
    groups: dict[str, list[float]] = {}
    for label in labels:
        groups.setdefault("summary/average" if "/" in label else "average", []).append(scalars[label])
    return {name: float(np.mean(values)) for name, values in groups.items()}


def _accuracy(scores: Sequence[AxisScore]) -> dict[str, float]:
    """Of questions that are judged by correctness, if there are any."""
    right = [one.score is not None and one.score >= RIGHT for one in scores if one.label == "correctness"]
    return {"accuracy": 100 * float(np.mean(right))} if right else {}


def _mean(values: Sequence[float | None], answers: Sequence[AxisScore], seed: int) -> Interval:
    read = [(value, one.video) for value, one in zip(values, answers, strict=True) if value is not None]
    found = cluster_bootstrap(
        np.array([value for value, _ in read], float), [video for _, video in read], resamples=RESAMPLES, seed=seed
    )
    return found.within(LOWEST, HIGHEST)


def _told(found: Interval) -> str:
    return interval({"value": found.mean, "low": found.low, "high": found.high})
