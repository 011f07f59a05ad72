"""Small clips whose frames say which they are: the number as 16 black or white blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video.writer import write_clip


def numbered(count: int, height: int = 16, block: int = 8) -> np.ndarray:
    """Frames uint8 [count, height, 16 block, 3] that show their own number."""
    bits = (np.arange(count)[:, None] >> np.arange(16)) & 1
    rows = np.repeat(bits * 200 + 25, block, axis=1).astype(np.uint8)
    return np.repeat(np.repeat(rows[:, None, :, None], height, axis=1), 3, axis=3)


def numbers(images: np.ndarray, block: int = 8) -> list[int]:
    """Which frames these are."""
    bits = images[:, :, block // 2 :: block].mean((1, 3)) > 128
    return (bits * (1 << np.arange(16))).sum(1).tolist()


def clip(folder: Path, count: int = 90, name: str = "clip.mp4", height: int = 16, **options: object) -> Path:
    """A file of numbered frames, 30 a second, with a key frame every 30."""
    path = folder / name
    given = {"options": {"preset": "ultrafast", "crf": "18", "g": "30", "threads": "1"}} | options
    if "seconds" not in given:
        given.setdefault("fps", 30.0)
    write_clip(path, numbered(count, height), **given)  # type: ignore[arg-type]
    return path
