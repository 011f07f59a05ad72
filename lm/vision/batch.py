"""Clips beside a forest: what positions without a token hold, before anything has looked at it.

Legend: T frames of a clip, S its slots, R runs of slots that stand for one, N vectors that come of it, P features of a
slot, D their width, C numbers that sum up a slot's picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lm.forests.batches import PairBatch, PromptBatch
from lm.forests.forest import Forest


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip that is to be seen.

    Args:
        key: what it is, so that what was made of it is found again.
        pixels: uint8 [T, 3, size, size]; none where its features were found.
        times: of its slots, seconds [S].
        runs: the slots that are merged into one.
        length: of the clip, seconds.
        tokens: N.
        looks: what its slots look like, by which they are merged [S, C].
        replaced: how many of its frames stand for others that could not be decoded.
        features: what the encoder made of it in an earlier run [S, P, D].
    """

    key: str
    pixels: Tensor
    times: np.ndarray
    runs: list[range]
    length: float
    tokens: int
    looks: np.ndarray
    replaced: int = 0
    features: Tensor | None = None

    @cached_property
    def slot_seconds(self) -> np.ndarray:
        """The time of each run: the mean of its slots' [R]."""
        return np.array([self.times[run.start : run.stop].mean() for run in self.runs])

    def to(self, device: torch.device | str) -> Clip:
        """The same clip on another device."""
        found = None if self.features is None else self.features.to(device, non_blocking=True)
        return replace(self, pixels=self.pixels.to(device, non_blocking=True), features=found)


class KeptClip(NamedTuple):
    """A clip that was encoded before, and all that has to be known of it beside its budget.

    Args:
        features: float32 [S, P, D].
        times: see `Clip`; so are the others.
    """

    features: Tensor
    times: np.ndarray
    looks: np.ndarray
    length: float
    replaced: int


@dataclass
class VideoBatch:
    """Questions about clips as paths of one forest.

    Args:
        forest: ids of vectors stand for rows of a table that has the vectors of all clips in turn.
        clips: in that order; none if all records are text.
        ids: of the records.
        skipped: how many records are not here because their video cannot be shown.
        kinds: which kind of question each path is.
    """

    forest: Forest
    clips: list[Clip]
    ids: list[str] = field(default_factory=list)
    skipped: int = 0
    kinds: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of paths."""
        return len(self.forest)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VideoBatch:
        """The same batch on another device."""
        return replace(self, forest=self.forest.to(device), clips=[clip.to(device) for clip in self.clips])


@dataclass
class VideoPairBatch(PairBatch):
    """Preference pairs about clips.

    Args:
        clips: whose vectors the forest's ids stand for, in turn.
    """

    clips: Sequence[Clip] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VideoPairBatch:
        """The same pairs on another device."""
        moved = super().to(device, non_blocking)
        return replace(self, **(vars(moved) | {"clips": [clip.to(device) for clip in self.clips]}))


class Talk(NamedTuple):
    """A conversation about a clip: the prompt of a turn is known when those before it are answered.

    Args:
        places: of its turns in a batch, in order.
        prompt: the tokens of the turn that follows these answers.
    """

    places: range
    prompt: Callable[[Sequence[str]], list[int]]


@dataclass
class VideoPromptBatch(PromptBatch):
    """Questions to answer about clips; the prompts stay on the host.

    Args:
        clips: whose vectors the prompts' ids stand for, in turn.
        frame_order: in which the frames are shown.
        talks: if questions are turns of conversations, all of them; the prompts of later turns are then empty.
    """

    clips: Sequence[Clip] = ()
    frame_order: str = "ordered"
    talks: Sequence[Talk] = ()
