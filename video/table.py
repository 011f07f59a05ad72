"""When each frame of a file is presented, and which of them are key frames: read off its packets, nothing is decoded.

Neither the number of frames nor the frame rate in a file's header is to be trusted: many have 0 there, or a mean. Its
length is asked for one thing: whether the end of the file is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from video.faults import VideoError, av_package

KEPT = 256  # tables of files that are at hand
MISSING = 0.5  # seconds by which a file may be shorter than its header says: that is rounded, or of all its streams
MICROSECONDS = 1_000_000  # FFmpeg's unit of a container's length
CLOCK = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")


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
        lost: how many frames at the end the header tells of, and are not there: the file was cut.
        timed: whether packets tell when they are presented; else frames are counted as the decoder gives them.
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
    lost: int = 0
    timed: bool = True

    def __len__(self) -> int:
        """Frames, with those that are lost."""
        return len(self.stamps)

    def keys_before(self, numbers: int | np.ndarray) -> np.ndarray:
        """Which of the key frames is the last at or before a frame, for each; -1 where none is."""
        return np.searchsorted(self.keys, numbers, side="right") - 1

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
        if container.format.name.startswith("mov") and _cut_fragments(path, size):
            raise VideoError(path, "unreadable", "its end is cut off, and how much it does not tell")
        packets, unit, timed = _packets(container, stream)
        if not packets:
            raise VideoError(path, "no_frames", "it has no packet of pictures")
        stamps = np.array([packet.shown for packet in packets], np.int64)
        keys = np.array([number for number, packet in enumerate(packets) if packet.key] or [0], np.int64)
        step = max(1, int(np.median(np.diff(stamps)))) if len(stamps) > 1 else round(1 / unit)
        seconds = float(stamps[-1] + (packets[-1].duration or step) - stamps[0]) * unit
        declared = _declared(container, stream, packets[0], unit)
        if declared - seconds <= max(MISSING, 2 * step * unit):
            declared = seconds
        lost = round((declared - seconds) / (step * unit))
        return VideoInfo(
            path=path,
            stream=stream.index,
            codec=stream.codec_context.name,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            stamps=np.concatenate([stamps, stamps[-1] + step * np.arange(1, lost + 1)]),
            unit=unit,
            seconds=declared,
            keys=keys,
            key_stamps=np.array([min(packets[number].shown, packets[number].coded) for number in keys], np.int64),
            lost=lost,
            timed=timed,
        )


class _Packet(NamedTuple):
    """Some picture: when it is presented, when decoded, how long it is shown, and whether it is a key frame."""

    shown: int
    coded: int
    duration: int
    key: bool


def _packets(container: Any, stream: Any) -> tuple[list[_Packet], float, bool]:
    """The packets that show something, in the order of presentation; seconds of a tick; and whether they are timed."""
    found, timed = list[_Packet](), True
    with suppress(av_package().error.FFmpegError):  # what comes before the error counts
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                shown = packet.pts if packet.pts is not None else packet.dts
                timed = timed and shown is not None
                coded = packet.dts if packet.dts is not None else shown
                found.append(_Packet(shown or 0, coded or 0, packet.duration or 0, packet.is_keyframe))
    unit = float(stream.time_base or 1.0)
    guessed = stream.codec_context.has_b_frames or len({packet.shown - packet.coded for packet in found}) > 1
    if timed and container.format.name == "avi" and guessed:  # it tells when pictures are decoded, and no more
        return _counted(sorted(packet.coded for packet in found)), unit, False
    if timed:
        return sorted(found), unit, True
    return _counted(range(len(found))), float(1 / (stream.guessed_rate or stream.average_rate or 25)), False


def _counted(stamps: Iterable[int]) -> list[_Packet]:
    """Pictures of which the decoder gives one for each time. It starts at the first: behind others it cannot count."""
    return [_Packet(at, at, 1, number == 0) for number, at in enumerate(stamps)]


def _declared(container: Any, stream: Any, first: _Packet, unit: float) -> float:
    """Seconds that the header gives to the stream, from its first frame on; 0 where it does not tell.

    Other containers are not asked: FFmpeg estimates their lengths from what is there.
    """
    match container.format.name.partition(",")[0]:
        case "mov":
            return float((stream.duration or 0) * stream.time_base)
        case "avi":
            return float(stream.frames * stream.time_base) - first.coded * unit  # skipped frames are counted too
        case "matroska":  # a file may be longer than its pictures; their own end is in a tag that most writers leave
            told = CLOCK.fullmatch(stream.metadata.get("DURATION", ""))
            end = (container.duration or 0) / MICROSECONDS if len(container.streams) == 1 else 0.0
            if told is not None:
                end = sum(float(part) * size for part, size in zip(told.groups(), (3600, 60, 1), strict=True))
            return end - first.shown * unit
    return 0.0


def _cut_fragments(path: str, size: int) -> bool:
    """Whether an mp4 in fragments ends within one: each box begins with its length and its name (ISO 14496-12).

    The header of such a file has no length, so that what is left would pass for a shorter film.
    """
    at, fragments = 0, False
    with Path(path).open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            fragments = fragments or head[4:8] == b"moof"
            length = int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:])
            if length < 8:  # 0: up to the end of the file; else it is no box
                return False
            at += length
    return fragments and at > size


def _said(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
