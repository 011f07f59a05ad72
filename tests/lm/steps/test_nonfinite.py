import pytest
import torch
from torch import nn

from lm.steps.nonfinite import trained_finite


def trained(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Two layers after a step of AdamW, the second one frozen; a weight of no elements, as an empty shard has."""
    model = nn.ModuleList([nn.Linear(3, 3, dtype=dtype), nn.Linear(3, 3, dtype=dtype).requires_grad_(False)])
    model.register_parameter("empty", nn.Parameter(torch.zeros(0, 3, dtype=dtype)))
    optimizer = torch.optim.AdamW(model.parameters())
    model[0](torch.ones(3, dtype=dtype)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_is_found_in_weights_and_in_moments(value):
    model, optimizer = trained()
    assert trained_finite(model, [optimizer])
    with torch.no_grad():
        model[1].weight[0, 0] = value  # frozen: not trained, and not looked at
    assert trained_finite(model, [optimizer])
    moment = optimizer.state[model[0].bias]["exp_avg_sq"]
    before, moment[2] = moment[2].clone(), value
    assert not trained_finite(model, [optimizer])
    moment[2] = before
    assert trained_finite(model, [optimizer])
    with torch.no_grad():
        model[0].weight[1, 2] = value
    assert not trained_finite(model, [optimizer])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_numbers_whose_squares_overflow_are_finite(dtype):
    model, optimizer = trained(dtype)
    with torch.no_grad():
        model[0].weight.fill_(torch.finfo(dtype).max)
    assert trained_finite(model, [optimizer])
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    assert not trained_finite(model, [optimizer])


def test_nothing_that_is_trained_is_finite():
    assert trained_finite(nn.Linear(2, 2).requires_grad_(False), [])
