"""Batches of rows that are about equally long, so that little of a batch is padding. Knows lengths, nothing else."""

from __future__ import annotations

import numpy as np


def length_batches(lengths: np.ndarray, max_tokens: int) -> list[list[int]]:
    """Numbers of rows by batch, the longest first, so that rows of one batch are about as long.

    Args:
        lengths: tokens of each row [n].
        max_tokens: of a batch, padding included; a longer row has a batch to itself.
    """
    batches: list[list[int]] = []
    width = 0
    for number in np.argsort(-lengths, kind="stable").tolist():
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = int(lengths[number])
        batches[-1].append(number)
    return batches
