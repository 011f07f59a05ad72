"""Frames of a file, or of a list of images, at given times, upright, in RGB.

Knows times, windows, and what stands for a frame that cannot be had. It does not know how frames are decoded
(video/decoding.py).

Legend: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from text.errors import UserError
from video.decoding import Shrink, decoded, require_one_size
from video.faults import VideoError
from video.sampling import SAME, Sampling, shown_at
from video.table import VideoInfo, probe

OVERSHOOT = 0.5  # seconds by which a window may be longer than its file: lengths in records are rounded
LEAST = 0.5  # share of the targets that must be reached for a broken file to be shown


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames in the order of their times.

    Attributes:
        images: uint8 [T, H, W, 3], RGB, upright.
        seconds: when each is presented, from the first frame of the file [T], float64.
        replaced: how many stand for a frame that could not be decoded: its nearest neighbour is shown.
        length: of the window, seconds.
    """

    images: np.ndarray
    seconds: np.ndarray
    replaced: int = 0
    length: float = 0.0

    def __len__(self) -> int:
        """T."""
        return len(self.images)


def read_frames(
    path: str | Path,
    times: Sequence[float] | None = None,
    n: int | None = None,
    fps: float | None = None,
    *,
    sampling: Sampling | None = None,
    start: float = 0.0,
    end: float | None = None,
    rng: np.random.Generator | None = None,
    damage: Literal["raise", "partial"] = "raise",
    decode_seconds: float = 30.0,
    shrink: Shrink | None = None,
) -> Frames:
    """Frames at ``times``, or ``n`` in equal parts, or so many a second, or as ``sampling`` says: one of these.

    Args:
        path: of the file.
        times: seconds from the first frame, in any order, also twice.
        n: see `Sampling`.
        fps: see `Sampling`.
        sampling: see `Sampling`.
        start: of the window, seconds.
        end: of the window; None is the end of the file. Up to half a second or a frame more is taken to mean that.
        rng: of the jitter of ``sampling``.
        damage: of a file that is broken within, ``partial`` takes what can be decoded, and the nearest frame for what
            cannot, if at least a share `LEAST` of the targets were reached.
        decode_seconds: the most that decoding may take.
        shrink: is applied to each frame as soon as it is decoded; see `video.decoding.Shrink`.

    Raises:
        VideoError: naming the file and what is wrong with it (video/faults.py).
        UserError: unless one way of sampling is given.
    """
    if sum(way is not None for way in (times, n, fps, sampling)) != 1:
        raise UserError("read_frames: give one of times, n, fps and sampling")
    info = probe(path)
    start, end = _window(path, info.seconds, info.seconds / len(info), start, end)
    if times is not None:
        wanted = np.asarray(times, np.float64)
        _require_within(info, wanted)
    else:
        wanted = (sampling or Sampling(n, fps)).times(start, end, rng)
    numbers = shown_at(info.presented, wanted)
    found = decoded(info, np.unique(numbers), decode_seconds, shrink)
    taken, replaced = _chosen(info, numbers, found, damage)
    return Frames(np.stack([found[number] for number in taken]), info.presented[taken], replaced, end - start)


def read_images(
    paths: Sequence[str | Path],
    fps: float,
    sampling: Sampling | None = None,
    start: float = 0.0,
    end: float | None = None,
    rng: np.random.Generator | None = None,
    shrink: Shrink | None = None,
) -> Frames:
    """Ordered image files as if they were a video; those that are not sampled are not opened.

    Args:
        paths: of the images.
        fps: at which they were taken.
        sampling: see `Sampling`; None takes all of the window.
        start: of the window, seconds.
        end: of the window; see `read_frames`.
        rng: of the jitter of ``sampling``.
        shrink: see `read_frames`.

    Raises:
        VideoError: for a file that is no image, or not of the size of the first, and a window that is not within.
    """
    presented = np.arange(len(paths)) / fps
    start, end = _window(paths[0], len(paths) / fps, 1 / fps, start, end)
    within = np.flatnonzero((presented >= start - SAME) & (presented < end - SAME))
    numbers = within if sampling is None else shown_at(presented, sampling.times(start, end, rng))
    images, size = [], None
    for number in numbers.tolist():
        image = read_frames(paths[number], times=[0.0]).images[0]
        size = size or image.shape
        require_one_size(paths[number], size, image)
        images.append(image if shrink is None else shrink(image))
    return Frames(np.stack(images), presented[numbers], 0, end - start)


def _window(path: str | Path, seconds: float, frame: float, start: float, end: float | None) -> tuple[float, float]:
    last = seconds if end is None else end
    if not 0 <= start < last or start >= seconds or last > seconds + max(OVERSHOOT, frame) + SAME:
        told = f"{start:g} to {'its end' if end is None else f'{end:g}'} s, and the file has {seconds:.3f} s"
        raise VideoError(path, "window", told)
    return start, min(last, seconds)


def _require_within(info: VideoInfo, times: np.ndarray) -> None:
    if not len(times) or not (times.min() >= 0 and times.max() <= info.seconds + SAME):  # also if one is no number
        told = f"times {times.min():g} to {times.max():g} s" if len(times) else "no time"
        raise VideoError(info.path, "window", f"{told}, and the file has {info.seconds:.3f} s")


def _chosen(info: VideoInfo, numbers: np.ndarray, found: dict[int, np.ndarray], damage: str) -> tuple[np.ndarray, int]:
    """The frames that are shown for those that were asked for, and how many of them are others."""
    there = np.array(sorted(found))
    reached = np.isin(numbers, there)
    if reached.all():
        return numbers, 0
    if damage == "raise" or not len(there) or reached.mean() < LEAST:
        told = f"{int(reached.sum())} of the {len(numbers)} frames that were asked for can be decoded"
        raise VideoError(info.path, "truncated", told)
    nearest = there[np.abs(info.presented[numbers][:, None] - info.presented[there][None]).argmin(1)]
    return np.where(reached, numbers, nearest), int((~reached).sum())
