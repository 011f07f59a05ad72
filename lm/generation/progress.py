"""How far generation is: a line now and then, in tokens, also while a batch is being written.

A batch may take minutes before its first sample is whole, so that counting samples tells nothing, or the wrong time.
This file knows numbers of tokens. It does not know which ones they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence, Sized
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import StoppingCriteria

from lm.generation.stopping import Ends

TELL_EVERY = 30.0  # seconds between two lines


class Progress:
    """What there is of the samples that were asked for, and when the rest will be; the first rank tells."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self.begin((), 0)

    def begin(self, draws: Sized, most: int) -> None:
        """Count from the beginning.

        Args:
            draws: the samples that are asked for; they may become more.
            most: tokens of each.
        """
        self._draws, self._most = draws, most
        self._began, self._tokens, self._finished = time.monotonic(), 0, 0

    def finished(self, tokens: int) -> None:
        """Take in a sample that is whole."""
        self._finished += 1
        self._tokens += tokens

    @property
    def due(self) -> bool:
        """Whether it is time for a line."""
        first = not dist.is_initialized() or dist.get_rank() == 0
        return first and time.monotonic() - self._told >= TELL_EVERY

    def watch(self, ends: Ends) -> StoppingCriteria:
        """Tells about the rows of a batch while they are written; stops nothing."""
        return _Watch(self, ends)

    def tell(self, ended: Sequence[int], written: Sequence[int]) -> None:
        """Print a line.

        Args:
            ended: tokens of each sample that is whole, beside those that were taken in.
            written: tokens of each sample that goes on.
        """
        self._told = time.monotonic()
        finished, tokens = self._finished + len(ended), self._tokens + sum(ended) + sum(written)
        spent = max(self._told - self._began, 1e-9)
        line = f"generated {tokens:,} tokens, {finished} of {len(self._draws)} samples, {tokens / spent:.0f} tokens/s"
        # The mean length that agrees with what has ended and what goes on, if ends come as likely at any token.
        mean = tokens / finished if finished else math.inf
        waiting = max(0, len(self._draws) - finished - len(written))
        left = waiting * min(mean, self._most) + sum(min(mean, self._most - length) for length in written)
        if tokens:
            about = "about" if finished else "at most"
            line += f", {about} {timedelta(seconds=round(spent * left / tokens))} left"
        print(line, flush=True)


class _Watch(StoppingCriteria):
    """Called after `ends`, at each token."""

    def __init__(self, progress: Progress, ends: Ends):
        self.progress, self.ends = progress, ends

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        if self.progress.due:  # only then are numbers fetched from a device
            done, lengths = self.ends.done.tolist(), self.ends.lengths.tolist()
            written = (input_ids.shape[1] - self.ends.width).tolist()
            self.progress.tell(
                [length for length, ended in zip(lengths, done, strict=True) if ended],
                [length for length, ended in zip(written, done, strict=True) if not ended],
            )
        return torch.zeros_like(self.ends.done)
