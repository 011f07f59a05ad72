"""Which training pairs share a batch: siblings together or apart, one task at a time.

In a contrastive batch every document is a negative of every other query. Passages of one query under other
instructions are the negatives that teach instructions, so batches are dealt in bundles of siblings; with bundles of one
no batch holds two of a group. This file knows labels and random numbers, not what the pairs are.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from text.errors import UserError


class SiblingBatches:
    """Batches of an epoch, a pure function of seed and epoch; every epoch has as many.

    Within a task, each group is cut into bundles; the first bundles of all groups are dealt in random order, then the
    second ones, and so on. What does not fill a bundle or a batch is left out of the epoch, by chance.

    Args:
        tasks: [n] label of each pair; a batch holds one task.
        groups: [n] label of each pair; its group within the task.
        batch_size: pairs of a batch.
        siblings: pairs of one group that stay together.

    Attributes:
        never: how many pairs are in no batch of any epoch: of groups that fill no bundle, and of tasks that fill no
            batch.
        by_turns: how many others an epoch leaves out, in each epoch different ones.

    Raises:
        UserError: if not a single batch can be filled.
    """

    def __init__(self, tasks: Sequence[Hashable], groups: Sequence[Hashable], batch_size: int, siblings: int = 1):
        if siblings < 1 or batch_size % siblings:
            raise UserError(f"batch_size {batch_size} must be a multiple of siblings {siblings}")
        self.siblings, self.bundles = siblings, batch_size // siblings
        members: dict[Hashable, dict[Hashable, list[int]]] = {}
        for number, (task, group) in enumerate(zip(tasks, groups, strict=True)):
            members.setdefault(task, {}).setdefault(group, []).append(number)
        self._tasks = [[np.asarray(numbers) for numbers in of_task.values()] for of_task in members.values()]
        lengths = [len(self._epoch(groups, np.random.default_rng(0))) for groups in self._tasks]
        self._length = sum(lengths)
        dealt = [group for groups, batches in zip(self._tasks, lengths, strict=True) if batches for group in groups]
        used = sum(len(group) for group in dealt if len(group) >= siblings)
        self.never, self.by_turns = len(tasks) - used, used - self._length * batch_size
        if not self._length:
            raise UserError(
                f"no batch of {batch_size} pairs can be filled: it takes {siblings} of each of {self.bundles} groups "
                "of one task; give more data, a smaller batch_size, or other siblings"
            )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._length

    @property
    def told(self) -> str:
        """What is left out, in words; empty where nothing is."""
        small = f"groups of fewer than {self.siblings} or " if self.siblings > 1 else ""
        never = f"{self.never:,} are never used, which are in {small}tasks that fill no batch"
        by_turns = f"{self.by_turns:,} are left out of an epoch, in each others, as they fill no batch"
        return "; ".join([never] * bool(self.never) + [by_turns] * bool(self.by_turns))

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each of ``batch_size`` numbers of pairs, siblings side by side."""
        rng = np.random.default_rng((seed, epoch))
        batches = [batch for groups in self._tasks for batch in self._epoch(groups, rng)]
        return [batches[place] for place in rng.permutation(len(batches))]

    def _epoch(self, groups: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        rounds: list[list[np.ndarray]] = []
        for numbers in groups:
            mixed = rng.permutation(numbers)
            for place in range(len(mixed) // self.siblings):
                if place == len(rounds):
                    rounds.append([])
                rounds[place].append(mixed[place * self.siblings : (place + 1) * self.siblings])
        batches = []
        for bundles in rounds:
            dealt = [bundles[place] for place in rng.permutation(len(bundles))]
            whole = range(0, len(dealt) - self.bundles + 1, self.bundles)
            batches += [np.concatenate(dealt[first : first + self.bundles]) for first in whole]
        return batches
