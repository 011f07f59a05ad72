"""Frames of a file by number: decoding, and no more of it than is needed.

Targets are taken in order, going on from where the decoder is unless a key frame lies between; then it starts there.
Which frame came is told by its presentation time, so that a container that seeks badly is noticed, and read from its
beginning. Where decoding fails, it goes on at the next key frame behind. It does not know which frames are wanted, or
why (video/reader.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from video.faults import VideoError, av_package
from video.table import VideoInfo, opened

Shrink: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Makes a frame smaller as soon as it is there: uint8 [H, W, 3] to [h, w, 3]. Whole ones of a long clip need memory."""


def decoded(
    info: VideoInfo, targets: np.ndarray, allowed: float, shrink: Shrink | None = None
) -> dict[int, np.ndarray]:
    """The images of frames by number, RGB, upright; as many as can be decoded.

    Args:
        info: of the file.
        targets: numbers of frames, ascending, none twice.
        allowed: seconds that it may take.
        shrink: is applied to each frame.

    Raises:
        VideoError: of kind ``slow``; ``sizes``, if frames differ in size; ``no_frames``, if not even the first decodes.
    """
    run = _Run(info, time.monotonic() + allowed, shrink)
    left = targets = targets[targets < len(info) - info.lost]
    while len(left) and (failed := run.forward(left)) is not None:
        left = left[info.keys_before(left) > info.keys_before(failed)]
    missing = targets[~np.isin(targets, [*run.found])]
    if len(missing) and len(info.keys) > 1:
        run.forward(missing, seeking=False)
    if not run.found:
        run.forward(np.array([0]))
        if not run.found:
            raise VideoError(info.path, "no_frames", "not even its first frame can be decoded")
        run.found.clear()  # it was not asked for
    return run.found


class _Run:
    """What was found of a file so far."""

    def __init__(self, info: VideoInfo, deadline: float, shrink: Shrink | None):
        self.info, self.deadline, self.shrink = info, deadline, shrink
        self.found: dict[int, np.ndarray] = {}
        self._size: tuple[int, ...] | None = None

    def forward(self, targets: np.ndarray, seeking: bool = True) -> int | None:
        """Take frames in order; returns the one on the way to which decoding failed, None if it did not."""
        av, info = av_package(), self.info
        with opened(info.path) as (container, stream):
            stream.thread_type = "NONE"  # other cores have work of their own
            reform = av.video.reformatter.VideoReformatter()
            at = -1  # number of the frame that the decoder gave last
            frames: Iterator[Any] = container.decode(stream)
            for target in targets.tolist():
                key = int(info.keys_before(target))
                try:
                    if seeking and key > 0 and info.keys[key] > at:
                        container.seek(int(info.key_stamps[key]), stream=stream, backward=True)
                        frames, at = container.decode(stream), int(info.keys[key]) - 1
                    while at < target and (frame := next(frames, None)) is not None:
                        at = self._number(frame, at)
                        if at == target:
                            self.found[target] = self._taken(reform, frame)
                except av.error.FFmpegError:
                    return target
        return None

    def _number(self, frame: Any, before: int) -> int:
        """Which frame the decoder gave, by its presentation time."""
        if time.monotonic() > self.deadline:
            raise VideoError(self.info.path, "slow", f"{len(self.found)} frames were decoded by then")
        if not self.info.timed or frame.pts is None:
            return before + 1
        return int(np.searchsorted(self.info.stamps, frame.pts, side="right")) - 1

    def _taken(self, reform: Any, frame: Any) -> np.ndarray:
        image = reform.reformat(frame, format="rgb24").to_ndarray()
        if turned := round(frame.rotation / 90) % 4:
            image = np.ascontiguousarray(np.rot90(image, k=turned))
        self._size = self._size or image.shape
        require_one_size(self.info.path, self._size, image)
        return image if self.shrink is None else self.shrink(image)


def require_one_size(path: Any, size: tuple[int, ...], image: np.ndarray) -> None:
    """Refuse a frame of another size than the first.

    Args:
        path: that is blamed.
        size: H, W and 3 of the first.
        image: [H, W, 3].

    Raises:
        VideoError: of kind ``sizes``.
    """
    if image.shape != size:
        told = " and ".join(f"{w} x {h}" for h, w, _ in (size, image.shape))
        raise VideoError(path, "sizes", f"the pictures of one video differ in size: {told}")
