"""Clips as files: frames through a real codec, at given times. The same frames give the same file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from text.errors import UserError
from text.whole_files import whole_file
from video.faults import av_package

TICK = Fraction(1, 90_000)


def write_clip(
    path: Path,
    images: np.ndarray,
    fps: float | None = None,
    seconds: Sequence[float] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
) -> None:
    """Write a clip, whole or not at all.

    Args:
        path: of the file; its ending says the container.
        images: uint8 [T, H, W, 3], RGB; H and W even.
        fps: of an even frame rate; or
        seconds: when each frame is presented, ascending [T].
        codec: an encoder of FFmpeg.
        options: of the encoder; by default those of x264 that are fast and nearly free of loss.
        pixels: the format in which the codec keeps them.

    Raises:
        UserError: unless one of ``fps`` and ``seconds`` is given, or this build has no such encoder.
    """
    av = av_package()
    if (fps is None) == (seconds is None):
        raise UserError("write_clip: give fps or seconds, one of them")
    shown = np.arange(len(images)) / fps if fps is not None else np.asarray(seconds, np.float64)
    if codec == "libx264" and options is None:
        options = {"preset": "ultrafast", "crf": "18", "threads": "1"}
    with whole_file(path) as partial, av.open(str(partial), "w", format=_container(path)) as container:
        try:
            stream = container.add_stream(codec, rate=Fraction(fps or 30).limit_denominator(1001), options=options)
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: this build of FFmpeg has no encoder '{codec}' ({error})") from None
        stream.height, stream.width, stream.pix_fmt = images.shape[1], images.shape[2], pixels
        stream.time_base = stream.codec_context.time_base = TICK
        for image, second in zip(images, shown.tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(second / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _container(path: Path) -> str:
    """The container by the ending, which a file that is still being written does not have."""
    kind = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov", ".webm": "webm"}.get(path.suffix)
    if kind is None:
        raise UserError(f"{path}: a clip is written as .mp4, .mov, .mkv or .webm")
    return kind
