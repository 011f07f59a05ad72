"""What can be wrong with a video file, by kind, with what to do about it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from text.errors import UserError

Kind = Literal[
    "missing",
    "unreadable",
    "no_video_stream",
    "codec",
    "no_frames",
    "truncated",
    "sizes",
    "window",
    "slow",
    "too_many_tokens",
]
KINDS: tuple[str, ...] = get_args(Kind)

REMEDIES: dict[str, str] = {
    "missing": "give a path that exists, or set data.video_root",
    "unreadable": "it is empty, no video, or was cut before its index: fetch it again, or leave the record out",
    "no_video_stream": "give a file with pictures in it",
    "codec": "write it anew, as H.264 say",
    "no_frames": "fetch it again, or leave the record out",
    "truncated": "fetch it again, leave the record out, or ask for frames before the damage ('end')",
    "sizes": "write it anew, with pictures of one size",
    "window": "give times within the file",
    "slow": "allow more time (data.decode_seconds), or write the file anew, smaller or with more key frames",
    "too_many_tokens": "allow more (max_tokens), sample fewer frames, or merge them (merge: similarity)",
}


class VideoError(UserError):
    """One file that cannot be shown.

    Args:
        path: of the file.
        kind: what is wrong with it.
        what: how that shows.

    Attributes:
        path, kind: as given.
    """

    def __init__(self, path: str | Path, kind: Kind, what: str):
        self.path, self.kind, self.what = str(path), kind, what
        super().__init__(f"{path}: {kind}: {what}: {REMEDIES[kind]}")

    def __reduce__(self) -> tuple:
        """A process that decodes hands its errors on."""
        return VideoError, (self.path, self.kind, self.what)


def av_package() -> ModuleType:
    """PyAV, which only those need who have videos.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("reading videos needs a package: pip install -c constraints.txt -e '.[video]'") from None
    return av
