"""Several means in one step: each has its own denominator, that of the whole step, however the step is cut."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lm.steps.step_mean import StepMean
from tests.preference_stand_ins import fit
from tests.stand_ins import scratch
from tests.two_means import STEPS, TwoMeans, UnevenRows, direct
from text.errors import UserError

STILL = partial(torch.optim.SGD, lr=0.0)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_two_means_are_those_of_the_step_however_it_is_cut(tmp_path, accumulation):
    """Also where a micro-batch, or the whole step, has nothing of one of them; also the incomplete last step."""
    data = UnevenRows()
    run = fit(tmp_path, TwoMeans(scratch(), optimizer=STILL), data, accumulate_grad_batches=accumulation)
    assert len(run.gradients) == len(STEPS)
    for taken, logged, rows in zip(run.gradients, run.logs, STEPS, strict=True):
        loss, gradients = direct(run.module, data.rows[list(rows)])
        torch.testing.assert_close(taken, gradients, atol=1e-12, rtol=0)
        assert logged["train/loss"] == pytest.approx(loss.item(), rel=1e-6)  # logged in float32
        assert min(g.abs().max() for g in gradients.values()) > 1e-6


def test_a_mean_whose_total_is_not_known_stands_alone():
    ones, total = torch.ones(2), torch.tensor(4)
    for accumulation in (1, 2):
        step = StepMean(accumulation, 1)
        step.begin()
        step.add(ones)
        for further in ({}, {"total": total}):
            with pytest.raises(ValueError, match="give that of each of several"):
                step.add(ones, **further)
    with pytest.raises(ValueError, match="give that of each"):
        StepMean(1, 1).add(ones, factor=0.5)


def test_gradients_that_the_strategy_hides_are_not_taken_for_exact_ones():
    step = StepMean(micro_batches=2, world_size=1)
    step.begin()
    step.add(torch.ones(3, requires_grad=True))
    with pytest.raises(UserError, match="hides gradients"):
        step.finish([], torch.device("cpu"))
    step.begin()
    step.add(torch.ones(3), total=torch.tensor(6))
    loss, _ = step.finish([], torch.device("cpu"))
    assert loss == 0.5
