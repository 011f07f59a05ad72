"""When something was seen: as numbers that are added to features, and as words between vectors.

Legend: S slots, D width of features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

TimeEncoding = Literal["relative", "absolute", "both", "none"]
TimeWords = Literal["none", "header", "interleaved"]


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time, through a linear layer that begins at zero: a pretrained aligner is unchanged.

    Frequencies are 4 pi 100^(-i/I) of the relative time and 10000^(-i/I) of seconds, i < I = D / 2.

    Args:
        encoding: of which time.
        width: D.
    """

    def __init__(self, encoding: TimeEncoding, width: int):
        super().__init__()
        self.encoding, half = encoding, max(1, width // 2)
        self.relative: Tensor
        self.absolute: Tensor
        self.width = width
        steps = torch.arange(half) / half
        self.register_buffer("relative", 4 * math.pi * 100.0**-steps, persistent=False)
        self.register_buffer("absolute", 10_000.0**-steps, persistent=False)
        parts = {"none": 0, "both": 2}.get(encoding, 1)
        self.linear = nn.Linear(2 * half * parts, width, bias=False) if parts else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)

    def forward(self, seconds: Tensor, lengths: Tensor) -> Tensor:
        """Times [S] in clips of these lengths [S], seconds -> [S, D]."""
        if self.linear is None:
            return seconds.new_zeros(len(seconds), self.width)
        angles = []
        if self.encoding in ("relative", "both"):
            angles.append((seconds / lengths.clamp(min=1e-6))[:, None] * self.relative)
        if self.encoding in ("absolute", "both"):
            angles.append(seconds[:, None] * self.absolute)
        waves = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
        return self.linear(waves.to(self.linear.weight.dtype))


def header(seconds: Sequence[float], length: float) -> str:
    """A sentence that tells what is shown."""
    when = ", ".join(f"{second:.1f}" for second in seconds)
    return f"A video of {length:.1f} seconds, of which {len(seconds)} frames follow, seen at {when} seconds:\n"


def marker(second: float) -> str:
    """What stands before the vectors of a slot."""
    return f"<{second:.1f} seconds>"
