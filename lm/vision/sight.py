"""What a method sees of a clip: how large, how many vectors, in which order with which words between them.

All of it follows from descriptions, so that a batch can be laid out in a loader's thread before any model is asked.

Legend: T frames, S slots, O slots that an aligner gives, k vectors of each, N = O k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lm.vision.aligners import Aligner
from lm.vision.batch import Clip, KeptClip
from lm.vision.merging import Merge, merged, summaries
from lm.vision.shapes import Shape
from lm.vision.times import TimeWords, header, marker
from text.errors import UserError
from video.faults import VideoError
from video.reader import Frames

Words = Callable[[str], list[int]]
LATEST = 9876.5  # seconds: a time with as many digits as most clips have at most


@dataclass(frozen=True)
class Sight:
    """How clips are seen.

    Args:
        shape: of the encoder.
        aligner: what follows it.
        max_tokens: vectors of a clip; a longer one is merged.
        merge: how; ``error`` refuses it.
        time_words: ``header`` tells all times before the vectors, ``interleaved`` each before its own.
        pairs: see `lm.vision.encoders.VisionBackbone`.

    Raises:
        UserError: if there is no room for the vectors of a single slot.
    """

    shape: Shape
    aligner: Aligner
    max_tokens: int = 2048
    merge: Merge = "similarity"
    time_words: TimeWords = "none"
    pairs: bool = False

    def __post_init__(self) -> None:
        """Check that something can be seen."""
        if self.per_slot > self.max_tokens:
            raise UserError(
                f"model: 'max_tokens' is {self.max_tokens}, and one slot of frames alone makes {self.per_slot} "
                "vectors: allow as many, or make fewer (aligner.stride, aligner.latents)"
            )

    @property
    def slot_frames(self) -> int:
        """Frames of a slot; a pair has a frame of its own and shares the other."""
        return 1 if self.pairs else self.shape.slot_frames

    @property
    def per_slot(self) -> int:
        """K."""
        return self.aligner.per_slot(self.shape.grid)

    def slots(self, frames: int) -> int:
        """S of so many frames, before anything is merged."""
        return -(-frames // self.slot_frames)

    @property
    def most_slots(self) -> int:
        """The most slots whose vectors are within the budget."""
        most = self.max_tokens // self.per_slot
        return most * {"conv": 2, "resampler": self.aligner.chunk}.get(self.aligner.kind, 1)

    def num_tokens(self, frames: int) -> int:
        """N of so many frames."""
        return self.aligner.num_tokens(min(self.slots(frames), self.most_slots), self.shape.grid)

    def most_tokens(self, frames: int | None, words: Words) -> int:
        """The most ids that a clip takes (`prefix`): of its vectors, and of the words that tell times up to `LATEST`.

        Args:
            frames: that it has at most; None is any number.
            words: makes tokens of a text.
        """
        slots = self.most_slots if frames is None else min(self.slots(frames), self.most_slots)
        runs, late = [range(at, at + 1) for at in range(slots)], np.full(slots, LATEST)
        tokens = self.aligner.num_tokens(slots, self.shape.grid)
        clip = Clip("", torch.empty(0), late, runs, LATEST, tokens, np.zeros((slots, 0)))
        return len(self.prefix(clip, range(tokens), words))

    def see(self, frames: Frames, key: str, where: str = "") -> Clip:
        """A clip as a batch holds it.

        Args:
            frames: of it, in the order in which they are shown, as large as the encoder wants them.
            key: see `Clip`.
            where: the file that is blamed.

        Raises:
            VideoError: of kind ``too_many_tokens``, if it is too long and ``merge`` is ``error``.
        """
        pixels = torch.from_numpy(frames.images).permute(0, 3, 1, 2).contiguous()
        looks = summaries(pixels.numpy(), self.slot_frames)
        runs = self._runs(looks, where)
        tokens = self.aligner.num_tokens(len(runs), self.shape.grid)
        times = self._slot_times(frames.seconds)
        return Clip(key, pixels, times, runs, frames.length, tokens, looks, frames.replaced)

    def remembered(self, kept: KeptClip, key: str, where: str = "") -> Clip:
        """The clip that `see` would give, with its features in place of pixels.

        Args:
            kept: what was made of it before.
            key: see `Clip`.
            where: the file that is blamed.

        Raises:
            VideoError: see `see`.
        """
        runs = self._runs(kept.looks, where)
        tokens = self.aligner.num_tokens(len(runs), self.shape.grid)
        none = torch.zeros(0, 3, self.shape.size, self.shape.size, dtype=torch.uint8)
        times = np.maximum(kept.times, 0.0)  # features that were kept long ago may begin slightly before their window
        return Clip(key, none, times, runs, kept.length, tokens, kept.looks, kept.replaced, kept.features)

    def _runs(self, looks: np.ndarray, where: str) -> list[range]:
        """The slots that are merged into one."""
        if self.merge == "error" and len(looks) > self.most_slots:
            told = f"{len(looks)} slots make {self.aligner.num_tokens(len(looks), self.shape.grid)} vectors"
            raise VideoError(where, "too_many_tokens", f"{told}, and max_tokens is {self.max_tokens}")
        return merged(looks, self.most_slots, self.merge)

    def _slot_times(self, seconds: np.ndarray) -> np.ndarray:
        edges = range(0, len(seconds), self.slot_frames)
        return np.array([seconds[at : at + self.slot_frames].mean() for at in edges])

    def prefix(self, clip: Clip, ids: Sequence[int] | np.ndarray, words: Words) -> list[int]:
        """The ids of a clip's vectors with the words that tell their times.

        Args:
            clip: the clip.
            ids: of its vectors [N].
            words: makes tokens of a text.
        """
        given = [int(id) for id in ids]
        if self.time_words == "none":
            return given
        groups = self.aligner.slot_groups(len(clip.runs))
        times = [float(np.mean(clip.slot_seconds[group.start : group.stop])) for group in groups]
        if self.time_words == "header":
            return [*words(header(times, clip.length)), *given]
        k = self.per_slot
        return [
            id for slot, time in enumerate(times) for id in (*words(marker(time)), *given[slot * k : (slot + 1) * k])
        ]
