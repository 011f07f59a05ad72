"""A video that is longer than its budget: neighbouring slots that look alike become one, until it fits.

What is merged is decided by the pixels, before anything is encoded, so that the number of vectors and their times are
known when a batch is made. This file knows arrays, no model.

Legend: S slots, C numbers that sum up a slot's picture.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from text.errors import UserError

Merge = Literal["similarity", "uniform", "error"]
SIDE = 8  # rows and columns to which a picture is shrunk to be compared


def summaries(pixels: np.ndarray, slot_frames: int) -> np.ndarray:
    """What slots look like: means of squares of their frames' pixels, [S, C].

    Args:
        pixels: uint8 [T, 3, H, W].
        slot_frames: frames of a slot.
    """
    count, colours, rows, columns = pixels.shape
    rows, columns = max(SIDE, rows // SIDE * SIDE), max(SIDE, columns // SIDE * SIDE)
    squares = pixels[:, :, :rows, :columns].reshape(count, colours, SIDE, rows // SIDE, SIDE, columns // SIDE)
    frames = squares.mean(axis=(3, 5)).reshape(count, -1) - 127.5
    return np.stack([frames[at : at + slot_frames].mean(0) for at in range(0, count, slot_frames)])


def merged(summaries_SC: np.ndarray, budget: int, how: Merge = "similarity") -> list[range]:
    """The slots that become one, in order: at most ``budget`` runs that cover all of them.

    ``similarity`` joins again and again the two neighbours whose means are most alike (cosine; of equals the first),
    each mean weighted by the slots that it stands for. ``uniform`` makes runs of equal length.

    Raises:
        UserError: if there are too many and ``how`` is ``error``.
    """
    count = len(summaries_SC)
    if count <= budget:
        return [range(at, at + 1) for at in range(count)]
    if how == "error":
        raise UserError(f"{count} slots of frames, and there is room for {budget}")
    if how == "uniform":
        edges = [count * part // budget for part in range(budget + 1)]
        return [range(begin, end) for begin, end in itertools.pairwise(edges)]
    runs, means = [range(at, at + 1) for at in range(count)], [row.astype(np.float64) for row in summaries_SC]
    alike = [_cosine(one, other) for one, other in itertools.pairwise(means)]
    while len(runs) > budget:
        at = int(np.argmax(alike))
        one, other = len(runs[at]), len(runs[at + 1])
        means[at : at + 2] = [(one * means[at] + other * means[at + 1]) / (one + other)]
        runs[at : at + 2] = [range(runs[at].start, runs[at + 1].stop)]
        del alike[at]
        for beside in (at - 1, at):
            if 0 <= beside < len(alike):
                alike[beside] = _cosine(means[beside], means[beside + 1])
    return runs


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size else 1.0
