"""Pooling by hand, for padding on either side."""

import pytest
import torch

from lm.retrieval.pooling import pool
from text.errors import UserError

HIDDEN = torch.tensor([[[1.0, 0], [3, 2], [10, 10]], [[7, 7], [1, 0], [3, 2]], [[1, 1], [2, 2], [6, 3]]])
RIGHT_LEFT_FULL = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [[2, 1], [2, 1], [3, 2]]),
        ("cls", [[1, 0], [1, 0], [1, 1]]),
        ("last", [[3, 2], [3, 2], [6, 3]]),
        ("weighted_mean", [[7 / 3, 4 / 3], [7 / 3, 4 / 3], [(1 + 4 + 18) / 6, (1 + 4 + 9) / 6]]),
    ],
)
def test_by_hand(pooling, expected):
    torch.testing.assert_close(pool(HIDDEN, RIGHT_LEFT_FULL, pooling), torch.tensor(expected, dtype=torch.float32))


def test_half_precision_is_summed_in_float32():
    assert pool(HIDDEN.bfloat16(), RIGHT_LEFT_FULL, "mean").dtype == torch.float32


def test_nothing_to_pool_is_an_error_not_nan():
    with pytest.raises(UserError, match="no token left to pool"):
        pool(HIDDEN, torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]]), "mean")
