"""Frames of a file at given times, upright, in RGB.

Only what is needed is decoded: targets are taken in order, going on from where the decoder is unless a key frame lies
between; then it starts there. Which frame came is told by its presentation time, so that a container that seeks badly
is noticed, and read from its beginning.

Legend: T frames, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from text.errors import UserError
from video.faults import VideoError, av_package
from video.sampling import SAME, Sampling, shown_at
from video.table import VideoInfo, opened, probe

OVERSHOOT = 0.5  # seconds by which a window may be longer than its file: lengths in records are rounded


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
    least: float = 0.5,
    decode_seconds: float = 30.0,
    threads: bool = False,
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
            cannot, if at least a share ``least`` of the targets were reached.
        least: see ``damage``.
        decode_seconds: the most that decoding may take.
        threads: decode with all cores; the frames are the same.

    Raises:
        VideoError: naming the file and what is wrong with it (video/faults.py).
        UserError: unless one way of sampling is given.
    """
    if sum(way is not None for way in (times, n, fps, sampling)) != 1:
        raise UserError("read_frames: give one of times, n, fps and sampling")
    info = probe(path)
    start, end = window(info, start, end)
    if times is not None:
        wanted = np.asarray(times, np.float64)
        _require_within(info, wanted)
    else:
        wanted = (sampling or Sampling(n, fps)).times(start, end, rng)
    numbers = shown_at(info.presented, wanted)
    found = _decoded(info, np.unique(numbers), decode_seconds, threads)
    taken, replaced = _chosen(info, numbers, found, damage, least)
    return Frames(np.stack([found[number] for number in taken]), info.presented[taken], replaced, end - start)


def read_images(
    paths: Sequence[str | Path],
    fps: float,
    sampling: Sampling | None = None,
    start: float = 0.0,
    end: float | None = None,
    rng: np.random.Generator | None = None,
) -> Frames:
    """Ordered image files as if they were a video; those that are not sampled are not opened.

    Args:
        paths: of the images.
        fps: at which they were taken.
        sampling: see `Sampling`; None takes all of the window.
        start: of the window, seconds.
        end: of the window; see `read_frames`.
        rng: of the jitter of ``sampling``.

    Raises:
        VideoError: for a file that is no image, or not of the size of the first, and a window that is not within.
    """
    presented = np.arange(len(paths)) / fps
    start, end = _window(paths[0], len(paths) / fps, 1 / fps, start, end)
    within = np.flatnonzero((presented >= start - SAME) & (presented < end - SAME))
    numbers = within if sampling is None else shown_at(presented, sampling.times(start, end, rng))
    images = [read_frames(paths[int(number)], times=[0.0]).images[0] for number in numbers]
    for number, image in zip(numbers, images, strict=True):
        if image.shape != images[0].shape:
            sizes = " and ".join(f"{w} x {h}" for h, w, _ in (image.shape, images[0].shape))
            raise VideoError(paths[number], "unreadable", f"the images of one video differ in size: {sizes}")
    return Frames(np.stack(images), presented[numbers], 0, end - start)


def window(info: VideoInfo, start: float, end: float | None) -> tuple[float, float]:
    """A window of a file, cut to its length.

    Raises:
        VideoError: of kind ``window``, if it is not within the file.
    """
    return _window(info.path, info.seconds, info.seconds / len(info), start, end)


def _window(path: str | Path, seconds: float, frame: float, start: float, end: float | None) -> tuple[float, float]:
    last = seconds if end is None else end
    if not 0 <= start < last or start >= seconds or last > seconds + max(OVERSHOOT, frame) + SAME:
        told = f"{start:g} to {'its end' if end is None else f'{end:g}'} s, and the file has {seconds:.3f} s"
        raise VideoError(path, "window", told)
    return start, min(last, seconds)


def _require_within(info: VideoInfo, times: np.ndarray) -> None:
    if not len(times) or times.min() < 0 or times.max() > info.seconds + SAME:
        told = f"times {times.min():g} to {times.max():g} s" if len(times) else "no time"
        raise VideoError(info.path, "window", f"{told}, and the file has {info.seconds:.3f} s")


def _decoded(info: VideoInfo, targets: np.ndarray, allowed: float, threads: bool) -> dict[int, np.ndarray]:
    """The images of frames by number, as many as can be decoded; from the beginning if seeking goes wrong."""
    deadline = time.monotonic() + allowed
    found = _pass(info, targets, deadline, threads, seeking=True)
    if len(found) < len(targets) and len(info.keys) > 1:
        missing = targets[~np.isin(targets, [*found])]
        found |= _pass(info, missing, deadline, threads, seeking=False)
    if not found:
        raise VideoError(info.path, "no_frames", "none of the frames that were asked for can be decoded")
    return found


def _pass(info: VideoInfo, targets: np.ndarray, deadline: float, threads: bool, seeking: bool) -> dict[int, np.ndarray]:
    av = av_package()
    found: dict[int, np.ndarray] = {}
    with opened(info.path) as (container, stream):
        stream.thread_type = "AUTO" if threads else "NONE"
        reform = av.video.reformatter.VideoReformatter()
        at = -1  # number of the frame that the decoder gave last
        frames: Iterator[Any] | None = None
        try:
            for target in targets.tolist():
                key = int(np.searchsorted(info.keys, target, side="right")) - 1
                if seeking and key >= 0 and info.keys[key] > at and key > 0:
                    container.seek(int(info.key_stamps[key]), stream=stream, backward=True)
                    frames, at = None, int(info.keys[key]) - 1
                if frames is None:
                    frames = container.decode(stream)
                while at < target and (frame := next(frames, None)) is not None:
                    if time.monotonic() > deadline:
                        raise VideoError(info.path, "slow", f"{len(found)} of {len(targets)} frames were decoded")
                    at = _number(info, frame, at)
                    if at == target:
                        found[target] = _upright(reform, frame)
        except av.error.FFmpegError:
            pass  # what came before it counts
    return found


def _number(info: VideoInfo, frame: Any, before: int) -> int:
    """Which frame the decoder gave, by its presentation time."""
    if frame.pts is None:
        return before + 1
    return int(np.searchsorted(info.stamps, frame.pts, side="right")) - 1


def _upright(reform: Any, frame: Any) -> np.ndarray:
    image = reform.reformat(frame, format="rgb24").to_ndarray()
    turned = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, k=turned)) if turned else image


def _chosen(
    info: VideoInfo, numbers: np.ndarray, found: dict[int, np.ndarray], damage: str, least: float
) -> tuple[np.ndarray, int]:
    """The frames that are shown for those that were asked for, and how many of them are others."""
    there = np.array(sorted(found))
    reached = np.isin(numbers, there)
    if reached.all():
        return numbers, 0
    if damage == "raise" or reached.mean() < least:
        told = f"{int(reached.sum())} of the {len(numbers)} frames that were asked for can be decoded"
        raise VideoError(info.path, "truncated", told)
    nearest = there[np.abs(info.presented[numbers][:, None] - info.presented[there][None]).argmin(1)]
    return np.where(reached, numbers, nearest), int((~reached).sum())
