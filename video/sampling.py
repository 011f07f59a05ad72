"""At which times a video is looked at. Times are seconds from its first frame; frames have no numbers here.

A frame is shown at time t if it is the last one that was presented by then: sampling by index would be wrong wherever
the frame rate varies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from text.errors import UserError

SAME = 1e-6  # seconds: times that differ by rounding only


def uniform(n: int, start: float, end: float) -> np.ndarray:
    """The middles of ``n`` equal parts of [start, end), [n]."""
    return start + (np.arange(n) + 0.5) * (end - start) / n


def every(fps: float, start: float, end: float) -> np.ndarray:
    """``start``, and so many times a second from there on, before ``end``."""
    return start + np.arange(max(1, int(np.ceil((end - start) * fps - SAME)))) / fps


def shown_at(presented: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Which frame is shown at each time: the last presented by then, or the first of all.

    Args:
        presented: when each frame is, ascending [F].
        times: [T].
    """
    return np.clip(np.searchsorted(presented, times + SAME, side="right") - 1, 0, len(presented) - 1)


@dataclass(frozen=True)
class Sampling:
    """Which frames of a window are looked at.

    Args:
        frames: so many, in the middles of equal parts.
        fps: in place of it, so many a second.
        min_frames: a window in which ``fps`` finds fewer is looked at so often, in equal parts.
        max_frames: likewise where it finds more; null is any number.
        middle: with ``fps``, look at the middle of each part and not at its beginning: of a reversed video the same
            frames are then seen.
        jitter: in training each time is drawn from its part, anew in every epoch.

    Raises:
        UserError: unless one of ``frames`` and ``fps`` is given, or a number is out of range.
    """

    frames: int | None = None
    fps: float | None = None
    min_frames: int = 1
    max_frames: int | None = None
    middle: bool = False
    jitter: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if (self.frames is None) == (self.fps is None):
            raise UserError("sampling: give 'frames' or 'fps', one of them")
        most = self.max_frames if self.max_frames is not None else self.min_frames
        rules = {"frames": self.frames is None or self.frames >= 1, "fps": self.fps is None or self.fps > 0}
        rules |= {"min_frames": self.min_frames >= 1, "max_frames": most >= self.min_frames}
        if wrong := [name for name, good in rules.items() if not good]:
            raise UserError(f"sampling: '{wrong[0]}' is {getattr(self, wrong[0])!r}: it is too small")

    def times(self, start: float, end: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """When to look at the window [start, end), seconds, ascending [T].

        Args:
            start: of the window.
            end: of the window.
            rng: draws the jitter, if it is asked for; None takes none.
        """
        if self.frames is not None:
            times = uniform(self.frames, start, end)
        else:
            assert self.fps is not None
            times = every(self.fps, start, end)
            if self.max_frames is not None and len(times) > self.max_frames:
                times = uniform(self.max_frames, start, end)
            elif len(times) < self.min_frames:
                times = uniform(self.min_frames, start, end)
            elif self.middle:
                times = uniform(len(times), start, end)
        if not self.jitter or rng is None:
            return times
        edges = np.linspace(start, end, len(times) + 1)
        return edges[:-1] + rng.random(len(times)) * np.diff(edges)
