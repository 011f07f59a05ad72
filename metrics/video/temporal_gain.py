"""What the order of frames is worth: the accuracy with it, less that of a control, over the same questions.

A control sees the same frames shuffled or reversed, one of them, or none. Who answers as well as that has not looked at
time. The difference is paired: an interval is over videos, whose questions are drawn together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metrics.tables import interval, section
from metrics.video.choices import AnsweredQuestion, accuracy


def temporal_gains(
    ordered: Sequence[AnsweredQuestion], controls: Mapping[str, Sequence[AnsweredQuestion]], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Gains in percentage points by ``<control>`` and ``<control>/<aspect>``: value, low, high.

    Args:
        ordered: what was answered to frames in order.
        controls: to the same questions in the same order, by name.
        seed: of the bootstrap.

    Raises:
        ValueError: if a control was asked something else.
    """
    gains = {}
    for name, answered in controls.items():
        if [one.name for one in answered] != [one.name for one in ordered]:
            raise ValueError(f"control '{name}' answers other questions")
        pairs = zip(ordered, answered, strict=True)
        differences = np.array([float(bool(a.right)) - float(bool(b.right)) for a, b in pairs])
        aspects = sorted({one.aspect for one in ordered if one.aspect})
        for label in (None, *aspects):
            rows = [n for n, one in enumerate(ordered) if label is None or one.aspect == label]
            found = accuracy(differences[rows], [ordered[n].video for n in rows], seed)
            gains[name if label is None else f"{name}/{label}"] = found
    return gains


def gains_text(gains: Mapping[str, dict[str, float]], what: str = "Accuracy") -> str:
    """A table of gains in ``what``."""
    rows = [[name, interval(found, 1)] for name, found in gains.items()]
    told = f"{what} in order less the control's, percentage points."
    return section("What order is worth, with 95 % intervals over videos", told, ["control", "gain"], rows)
