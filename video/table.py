"""When each frame of a file is presented, and which of them are key frames: read off its packets, nothing is decoded.

Neither the number of frames nor the frame rate in a file's header is to be trusted: many have 0 there, or a mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from video.faults import VideoError, av_package

KEPT = 256  # tables of files that are at hand


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What there is to see in a file.

    Attributes:
        path: of the file.
        stream: index of the stream that FFmpeg finds best among all.
        codec: its name.
        width, height: of a coded frame, before it is turned upright.
        stamps: presentation time of each frame in ``unit``, ascending [F], int64.
        unit: seconds of a tick.
        seconds: from the first frame's presentation to the end of the last one's.
        keys: numbers of the key frames [K].
        key_stamps: where to seek for each of these, in ``unit`` [K].
        complete: whether the packets could be read to the end of the file.
    """

    path: str
    stream: int
    codec: str
    width: int
    height: int
    stamps: np.ndarray
    unit: float
    seconds: float
    keys: np.ndarray
    key_stamps: np.ndarray
    complete: bool

    def __len__(self) -> int:
        """Frames, as far as packets tell."""
        return len(self.stamps)

    @property
    def presented(self) -> np.ndarray:
        """Seconds from the first frame [F]."""
        return (self.stamps - self.stamps[0]) * self.unit


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """A container and the stream that is looked at; closed afterwards, whatever happens.

    Raises:
        VideoError: naming what is wrong.
    """
    av = av_package()
    if not Path(path).is_file():
        raise VideoError(path, "missing", "there is no such file")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, "unreadable", _said(error)) from None
    with container:
        stream = container.streams.best("video")
        if stream is None:
            kinds = sorted({other.type for other in container.streams}) or ["none"]
            raise VideoError(path, "no_video_stream", f"its streams are {', '.join(kinds)}")
        yield container, stream


def probe(path: str | Path) -> VideoInfo:
    """What there is to see in a file; read once, and again when the file has changed.

    Raises:
        VideoError: ``missing``, ``unreadable``, ``no_video_stream``, ``codec`` or ``no_frames``.
    """
    return _probed(*stamp(path))


def stamp(path: str | Path) -> tuple[str, int, int]:
    """Path, size in bytes and time of the last change in nanoseconds of a file: whether it is as it was.

    Raises:
        VideoError: of kind ``missing``.
    """
    try:
        at = Path(path).stat()
    except OSError:
        raise VideoError(path, "missing", "there is no such file") from None
    return str(path), at.st_size, at.st_mtime_ns


@lru_cache(maxsize=KEPT)
def _probed(path: str, size: int, mtime: int) -> VideoInfo:
    with opened(path) as (container, stream):
        if stream.codec_context is None:
            raise VideoError(path, "codec", "no decoder for its pictures is built in")
        packets, complete = _packets(container, stream)
        if not packets:
            raise VideoError(path, "no_frames", "it has no packet of pictures")
        packets.sort()
        stamps = np.array([packet[0] for packet in packets], np.int64)
        unit = float(stream.time_base or 1.0)
        keys = np.array([number for number, packet in enumerate(packets) if packet[3]] or [0], np.int64)
        last = packets[-1][2] or (int(np.median(np.diff(stamps))) if len(stamps) > 1 else 1 / unit)
        return VideoInfo(
            path=path,
            stream=stream.index,
            codec=stream.codec_context.name,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            stamps=stamps,
            unit=unit,
            seconds=float(stamps[-1] + last - stamps[0]) * unit,
            keys=keys,
            key_stamps=np.array([packets[number][1] for number in keys], np.int64),
            complete=complete,
        )


def _packets(container: Any, stream: Any) -> tuple[list[tuple[int, int, int, bool]], bool]:
    """Presentation time, decoding time, duration and whether it is a key frame, of each packet that shows something."""
    found: list[tuple[int, int, int, bool]] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamp = packet.pts if packet.pts is not None else packet.dts if packet.dts is not None else len(found)
                early = stamp if packet.dts is None else min(packet.dts, stamp)
                found.append((stamp, early, packet.duration or 0, packet.is_keyframe))
    except av_package().error.FFmpegError:
        return found, False
    return found, True


def _said(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
