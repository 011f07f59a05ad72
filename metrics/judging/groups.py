"""Parts of a test set, such as capabilities or sources, that a metric also reports one by one.

They are named when a metric is made, so that all ranks report the same names, whatever each of them has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from text.errors import UserError

MEAN = "mean"


def group_numbers(labels: Sequence[str] | None, known: Sequence[str], n: int) -> Tensor:
    """Places of labels among the known ones, int64 [n]; all 0 where no groups are known.

    Raises:
        UserError: a label is unknown or missing.
    """
    if not known:
        return torch.zeros(n, dtype=torch.int64)
    if labels is None or len(labels) != n:
        raise UserError(f"{n} items need a group each: one of {', '.join(known)}")
    place = {name: number for number, name in enumerate(known)}
    if strange := next((label for label in labels if label not in place), None):
        raise UserError(f"'{strange}' is not a known group: {', '.join(known)}")
    return torch.tensor([place[label] for label in labels], dtype=torch.int64)


def by_group(
    names: Sequence[str], whole: dict[str, float], part: Callable[[int], dict[str, float]], averaged: Sequence[str]
) -> dict[str, float]:
    """The numbers of all items, ``<group>/<number>`` of each group, and ``mean/<number>`` over groups.

    Args:
        names: of the groups.
        whole: the numbers of all items together.
        part: makes the numbers of one group.
        averaged: which of them have a mean over groups. It leaves out groups in which a number is not defined, and is
            NaN where it is defined in none.
    """
    if not names:
        return whole
    parts = [part(number) for number in range(len(names))]
    means = {}
    for key in averaged:
        defined = [found[key] for found in parts if not np.isnan(found[key])]
        means[f"{MEAN}/{key}"] = float(np.mean(defined)) if defined else float("nan")
    singly = {f"{name}/{key}": value for name, found in zip(names, parts, strict=True) for key, value in found.items()}
    return whole | means | singly
