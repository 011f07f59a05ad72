"""What is looked at of a record: which file, or which images, and when.

Knows records and names of files. It does not open them (lm/vision/clips.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from text.errors import UserError
from text.video.video_records import VideoRecord

ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class ClipSource:
    """What is looked at of a record.

    Args:
        video: path of a file, or of images in order.
        start, end: of the window, seconds.
        fps: of a list of images.
        name: of the record.
    """

    video: str | tuple[str, ...]
    start: float
    end: float | None
    fps: float | None
    name: str

    @classmethod
    def of(cls, record: VideoRecord, root: str | None, name: str) -> ClipSource | None:
        """Of a record; None of text alone.

        A name without an ending is that of a file with one of `ENDINGS`, or of a folder of images, in the order of
        their names.
        """
        if record.video is None:
            return None
        paths = [record.video] if isinstance(record.video, str) else record.video
        found = tuple(str(Path(root or "", path).expanduser()) for path in paths)
        video = _there(found[0], record.fps) if isinstance(record.video, str) else found
        return cls(video, record.start, record.end, record.fps, name)

    @property
    def files(self) -> tuple[str, ...]:
        """All paths."""
        return (self.video,) if isinstance(self.video, str) else self.video

    @property
    def still(self) -> bool:
        """Whether it is a single picture."""
        return len(self.files) == 1 and Path(self.files[0]).suffix.lower() in IMAGES


def _there(path: str, fps: float | None) -> str | tuple[str, ...]:
    """What goes by this name: a file, or the images of a folder, whose rate must be known."""
    named = Path(path)
    if named.is_dir():
        images = tuple(sorted(str(file) for file in named.iterdir() if file.suffix.lower() in IMAGES))
        if images and fps is not None:
            return images
        told = "'fps' of the record is missing: at which rate they were taken" if images else "no image is in it"
        raise UserError(f"{path} is a folder, which is a video as images: {told}")
    if not named.suffix and not named.exists():
        return next((path + ending for ending in ENDINGS if Path(path + ending).is_file()), path)
    return path
