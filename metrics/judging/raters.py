"""How far several ratings of the same items agree: Krippendorff's alpha.

Source: K. Krippendorff, Computing Krippendorff's alpha-reliability (2011). Shape suffixes: U items with two ratings or
more, V distinct values.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from text.errors import UserError

Level = Literal["nominal", "ordinal", "interval"]
LEVELS = ("nominal", "ordinal", "interval")


def krippendorff_alpha(ratings: Tensor, level: Level = "ordinal") -> Tensor:
    """Alpha = 1 - D_o / D_e: observed over expected disagreement; 1 is perfect, 0 what chance would give.

    Args:
        ratings: [raters, items], NaN where a rater gave none. An item with a single rating says nothing and is left
            out.
        level: how far two values are apart. ``nominal``: different or not; ``interval``: (c - k)^2; ``ordinal``:
            (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2, n_g counting the ratings g.

    Returns: a scalar, float64; NaN where no item has two ratings, or all ratings are the same.

    Raises:
        UserError: the level is not known.
        ValueError: the ratings are no table.
    """
    if level not in LEVELS:
        raise UserError(f"level '{level}' is not known: {', '.join(LEVELS)}")
    if ratings.ndim != 2:
        raise ValueError(f"ratings are [raters, items], not of shape {[*ratings.shape]}")
    table = ratings.detach().to("cpu", torch.float64)
    table = table[:, (~table.isnan()).sum(0) >= 2]
    values_V, codes = table[~table.isnan()].unique(return_inverse=True)
    if len(values_V) < 2:
        return torch.tensor(math.nan, dtype=torch.float64)
    counts_UV = torch.zeros(table.shape[1], len(values_V), dtype=torch.float64)
    items = (~table.isnan()).nonzero()[:, 1]
    counts_UV.index_put_((items, codes), torch.ones(len(codes), dtype=torch.float64), accumulate=True)
    n_V = counts_UV.sum(0)
    # pairs of different values within an item; pairs of equal ones are no distance apart
    observed_VV = counts_UV.T @ (counts_UV / (counts_UV.sum(1, keepdim=True) - 1))
    expected_VV = torch.outer(n_V, n_V) / (n_V.sum() - 1)
    distance_VV = _squared_distances(values_V, n_V, level)
    return 1 - (observed_VV * distance_VV).sum() / (expected_VV * distance_VV).sum()


def _squared_distances(values_V: Tensor, n_V: Tensor, level: Level) -> Tensor:
    if level == "nominal":
        return 1 - torch.eye(len(values_V), dtype=torch.float64)
    # ordinal: ranks in the middle of the ratings of a value lie as far apart as the sum in the docstring says
    places_V = values_V if level == "interval" else n_V.cumsum(0) - n_V / 2
    return (places_V[:, None] - places_V).square()
