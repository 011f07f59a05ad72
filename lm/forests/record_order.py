"""Which records share a micro-batch: groups in random order, the records of a group side by side in random order.

Side by side, records of one prompt land in one forest, where the prompt is computed once; apart, they make a batch of
more prompts and a gradient of less noise. A micro-batch is a pure
function of its place, whatever the ranks, the accumulation or a resume; epochs follow one another without a seam, so
that no record is left out. This file knows labels and sizes, not what the records are.

Legend: n records.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from text.errors import UserError


class GroupedOrder:
    """The order of an epoch, a pure function of seed and epoch.

    Args:
        groups: label of each record [n], from 0 on.
        seed: of the order.
    """

    def __init__(self, groups: np.ndarray, seed: int):
        self.groups, self.seed = groups, seed
        self.epoch: Callable[[int], np.ndarray] = lru_cache(maxsize=4)(self._epoch)

    def __len__(self) -> int:
        return len(self.groups)

    def as_given(self) -> np.ndarray:
        """The records by group, groups in the order of their first record [n]."""
        return np.argsort(self.groups, kind="stable")

    def _epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        place_of_group = rng.permutation(int(self.groups.max(initial=-1)) + 1)
        return np.lexsort((rng.permutation(len(self)), place_of_group[self.groups]))


class CountedBatches:
    """Micro-batches of equal counts: record r of optimizer step s is number ``s * batch_size + r`` of all epochs.

    Args:
        order: of the records.
        batch_size: records of an optimizer step over all ranks and accumulated micro-batches.
        accumulation: micro-batches of a step on one rank.
        rank: of this process.
        world_size: ranks.
    """

    def __init__(self, order: GroupedOrder, batch_size: int, accumulation: int = 1, rank: int = 0, world_size: int = 1):
        self.order, self.batch_size = order, batch_size
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size
        self.micro = batch_size // (accumulation * world_size)

    def __len__(self) -> int:
        """Micro-batches of an epoch on one rank."""
        return len(self.order) // self.batch_size * self.accumulation

    def rows(self, step: int, accumulated: int) -> np.ndarray:
        """The records of this rank's micro-batch number ``accumulated`` of an optimizer step."""
        first = step * self.batch_size + (accumulated * self.world_size + self.rank) * self.micro
        places = np.arange(first, first + self.micro)
        epochs = places // len(self.order)
        return np.concatenate(
            [self.order.epoch(int(e))[places[epochs == e] % len(self.order)] for e in np.unique(epochs)]
        )


class PackedBatches:
    """Micro-batches of as many records as a budget of tokens holds.

    Args:
        order: of the records.
        sizes: of each record beside its prompt, and of its prompt, which neighbours share [2, n].
        max_tokens: of a micro-batch; a record of more has one to itself.
        prompt_of: which prompt each record has [n].
        least: records of a micro-batch, whatever they take.
        accumulation: micro-batches of a step on one rank.
        rank: of this process.
        world_size: ranks.
    """

    def __init__(
        self,
        order: GroupedOrder,
        sizes: np.ndarray,
        prompt_of: np.ndarray,
        max_tokens: int,
        least: int = 1,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.order, self.sizes, self.prompt_of = order, sizes, prompt_of
        self.max_tokens, self.least = max_tokens, least
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size
        self.cuts: Callable[[int], np.ndarray] = lru_cache(maxsize=4)(lambda epoch: self.pack(order.epoch(epoch)))
        self._first: list[int] = [0]  # number of each epoch's first micro-batch, as far as is known

    def pack(self, rows: np.ndarray) -> np.ndarray:
        """Where micro-batches begin when records are taken in this order."""
        beside, prompts = self.sizes[:, rows].tolist()
        same = [False, *(self.prompt_of[rows][1:] == self.prompt_of[rows][:-1]).tolist()]
        begins, total = [0], 0
        for place, (size, prompt, shared) in enumerate(zip(beside, prompts, same, strict=True)):
            cost = size if shared and place > begins[-1] else size + prompt
            if place - begins[-1] >= self.least and total + cost > self.max_tokens:
                begins.append(place)
                total, cost = 0, size + prompt
            total += cost
        return np.array(begins[:-1] if len(begins) > 1 and len(rows) - begins[-1] < self.least else begins)

    def __len__(self) -> int:
        """Micro-batches that count as an epoch on one rank: whole steps of the first one."""
        return len(self.cuts(0)) // (self.accumulation * self.world_size) * self.accumulation

    def rows(self, step: int, accumulated: int) -> np.ndarray:
        """The records of this rank's micro-batch number ``accumulated`` of an optimizer step."""
        number = (step * self.accumulation + accumulated) * self.world_size + self.rank
        while self._first[-1] <= number:
            self._first.append(self._first[-1] + len(self.cuts(len(self._first) - 1)))
        epoch = int(np.searchsorted(self._first, number, side="right")) - 1
        edges = [*self.cuts(epoch), len(self.order)]
        place = number - self._first[epoch]
        return self.order.epoch(epoch)[edges[place] : edges[place + 1]]

    def shares(self, rows: np.ndarray) -> list[np.ndarray]:
        """This rank's micro-batches of these records: all of them once over the ranks, as many on every rank.

        Raises:
            UserError: with fewer records than ranks.
        """
        if len(rows) < self.world_size:
            raise UserError(f"{len(rows)} records cannot be shared by {self.world_size} ranks")
        parts = np.split(rows, self.pack(rows)[1:])
        wanted = -(-len(parts) // self.world_size) * self.world_size
        if wanted > len(rows):  # some would be empty: fewer, and a few tokens more than the budget
            wanted -= self.world_size
        while len(parts) < wanted:  # halve the largest
            largest = max(range(len(parts)), key=lambda part: len(parts[part]))
            half = len(parts[largest]) // 2
            parts[largest : largest + 1] = [parts[largest][:half], parts[largest][half:]]
        while len(parts) > wanted:  # join the smallest neighbours
            least = min(range(len(parts) - 1), key=lambda part: len(parts[part]) + len(parts[part + 1]))
            parts[least : least + 2] = [np.concatenate(parts[least : least + 2])]
        return parts[self.rank :: self.world_size]


def parts_of_a_step(sizes: np.ndarray, records: int, tokens: int, least: int = 1) -> int:
    """Into how many micro-batches of equally many records a rank's share of an optimizer step is cut.

    Args:
        sizes: tokens of all records [n]; the largest may come together.
        records: of the share.
        tokens: that a micro-batch may have.
        least: records of a micro-batch, whatever they take.

    Returns: as few as fit; the most that ``least`` allows where none do.
    """
    together = np.cumsum(np.sort(sizes)[::-1])
    fits = np.searchsorted(together, tokens, side="right") if len(together) else 0
    parts = [part for part in range(1, records + 1) if records % part == 0 and records // part >= least]
    return next((part for part in parts if records // part <= max(fits, least)), parts[-1] if parts else 1)
