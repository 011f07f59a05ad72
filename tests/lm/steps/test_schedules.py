from functools import partial

import pytest
import torch
from torch.optim import SGD, AdamW, lr_scheduler
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, LinearLR, OneCycleLR, StepLR

from lm.steps.schedules import Configured, EpochDecay, Warmup, keep_configured
from text.errors import UserError


def rates(steps, **arguments):
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = Warmup(optimizer, **arguments)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_warmup_moves_from_the_first_update_and_then_stays():
    assert rates(6, warmup_steps=4) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_linear_falls_to_the_final_share_and_stays():
    expected = [1.0, 2.0, 2.0, 1.55, 1.1, 0.65, 0.2, 0.2, 0.2]  # 2 * (0.1 + 0.9 * (1 - (k - 2) / 4))
    assert rates(9, warmup_steps=2, total_steps=6, shape="linear") == pytest.approx(expected)


def test_cosine_is_half_way_at_half_time():
    seen = rates(6, total_steps=4, shape="cosine", final_lr_fraction=0.0)
    # 1 + cos(pi k / 4)
    assert seen == pytest.approx([2.0, 1.7071067811865475, 1.0, 0.2928932188134524, 0.0, 0.0])


def test_a_later_start_is_a_shift():
    whole = rates(10, warmup_steps=3, total_steps=8, shape="cosine")
    assert rates(4, warmup_steps=3, total_steps=8, shape="cosine", start_step=5) == pytest.approx(whole[5:9])


def fitted(run_steps, **arguments):
    """Rates of all updates of a run of so many steps, and what is told of it."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = Warmup(optimizer, **arguments)
    told = scheduler.fit_to(run_steps)
    seen = []
    for _ in range(run_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == [seen[-1]]
        optimizer.step()
        scheduler.step()
    return seen, told


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("start_step", [0, 3])
def test_left_out_numbers_are_those_of_the_run(shape, start_step):
    rest = {"shape": shape, "final_lr_fraction": 0.05, "start_step": start_step}
    by_hand = rates(10, warmup_steps=2, total_steps=10 + start_step, **rest)
    assert fitted(10, warmup_steps=2, **rest) == (by_hand, [])
    ratio = {0: 0.11, 3: 0.1}[start_step]  # 1.1 of 10 and 1.3 of 13 steps are rounded up
    assert fitted(10, warmup_ratio=ratio, **rest) == (by_hand, [])
    assert fitted(10, warmup_ratio=ratio, total_steps=10 + start_step, **rest) == (by_hand, [])


def test_a_ratio_of_nothing_warms_up_over_nothing():
    assert fitted(4, warmup_ratio=0.0, shape="linear", final_lr_fraction=0.0)[0] == [2.0, 1.5, 1.0, 0.5]


def test_a_schedule_that_the_run_does_not_reach_is_told_with_both_numbers():
    (line,) = fitted(200, total_steps=580, shape="linear", final_lr_fraction=0.0)[1]
    assert "'total_steps' is 580, but this run ends at 200, where the rate is still 66% of its base" in line
    assert fitted(200, total_steps=580, start_step=100, shape="linear")[1] == []  # a piece of a longer training
    assert fitted(200, total_steps=200, shape="linear")[1] == []
    assert fitted(200, total_steps=580)[1] == []  # a constant rate falls nowhere


def test_a_rate_of_nothing_is_told_with_both_numbers():
    (line,) = fitted(2300, total_steps=580, shape="linear", final_lr_fraction=0.0)[1]
    assert "'total_steps' is 580 and this run has 2,300: the rate is 0 in 75% of its steps" in line
    assert fitted(2300, total_steps=580, shape="linear")[1] == []  # a tenth of the rate is left
    assert fitted(600, total_steps=590, shape="linear", final_lr_fraction=0.0)[1] == []


def test_a_run_within_its_warm_up_is_told():
    (line,) = fitted(5, warmup_steps=10, shape="linear")[1]
    assert "rises over 10 steps, and this run ends at 5" in line


@pytest.mark.parametrize("arguments", [{"shape": "linear"}, {"warmup_ratio": 0.1}])
def test_a_run_without_an_end_needs_a_number(arguments):
    scheduler = Warmup(SGD([torch.zeros(1, requires_grad=True)], lr=1.0), **arguments)
    with pytest.raises(UserError, match=r"this run has no end: set trainer\.max_steps"):
        scheduler.fit_to(float("inf"))
    endless = Warmup(SGD([torch.zeros(1, requires_grad=True)], lr=1.0), warmup_steps=4)
    assert endless.fit_to(float("inf")) == []
    assert endless.get_last_lr() == [0.25]


def test_state_holds_a_position_and_nothing_of_the_configuration():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    old = Warmup(optimizer, warmup_steps=10)
    for _ in range(5):
        optimizer.step()
        old.step()
    new = Warmup(SGD([torch.zeros(1, requires_grad=True)], lr=1.0), warmup_steps=20)
    assert not {"plan", "warmup_steps", "total_steps"} & old.state_dict().keys()
    new.load_state_dict(old.state_dict())
    new.step()
    assert new.get_last_lr() == pytest.approx([7 / 20])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "cosine", "warmup_steps": 5, "total_steps": 5}, "greater than 'warmup_steps'"),
        ({"total_steps": 7.5}, "'total_steps' is 7.5"),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "beside 'warmup_steps' 3"),
        ({"warmup_ratio": 1.0}, "'warmup_ratio' is 1.0"),
        ({"shape": "square"}, "constant, linear or cosine"),
        ({"warmup_steps": 1.5}, "'warmup_steps' is 1.5"),
        ({"start_step": -1}, "'start_step' is -1"),
        ({"final_lr_fraction": 2.0}, "'final_lr_fraction' is 2.0"),
    ],
)
def test_numbers_that_are_no_schedule_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        rates(1, **arguments)


def test_a_rate_falls_after_each_epoch_as_with_steplr():
    kinds = (lambda o: EpochDecay(o, 0.85), lambda o: StepLR(o, step_size=1, gamma=0.85))
    seen = []
    for kind in kinds:
        optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0e-5)
        scheduler = kind(optimizer)
        rates = []
        for _ in range(3):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        seen.append(rates)
    assert seen[0] == pytest.approx(seen[1])
    assert seen[0][0] == 2.0e-5
    for gamma in (0.0, 1.1, float("nan")):
        with pytest.raises(UserError, match="'gamma' is"):
            EpochDecay(optimizer, gamma)


KINDS = {
    "Warmup": partial(Warmup, warmup_steps=3, total_steps=7, shape="cosine"),
    "EpochDecay": partial(EpochDecay, gamma=0.9),
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
    "MultiplicativeLR": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda step: 1 - 0.1 * step),
    "StepLR": partial(StepLR, step_size=2, gamma=0.5),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[1, 5], gamma=0.3),
    "ConstantLR": partial(ConstantLR, factor=0.25, total_iters=5),
    "LinearLR": partial(LinearLR, start_factor=0.25, total_iters=6),
    "ExponentialLR": partial(ExponentialLR, gamma=0.9),
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=7, power=2.0),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=3, eta_min=0.01),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2, T_mult=2),
    "CyclicLR": partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=0.9, step_size_up=3),
    "OneCycleLR": partial(OneCycleLR, max_lr=0.9, total_steps=10),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(o, [LinearLR(o, 0.25), ExponentialLR(o, 0.9)], [3]),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([ConstantLR(o, 0.25), ExponentialLR(o, 0.9)], o),
}
every_kind = pytest.mark.parametrize("kind", [None, *KINDS])


def built(kind, lr=1.0, decay=0.1):
    """An optimizer of two groups, its schedule, and what was configured."""
    groups = [{"params": [torch.ones(1, requires_grad=True)], "lr": rate} for rate in (lr, 0.3)]
    optimizer = AdamW(groups, weight_decay=decay)
    scheduler = kind and KINDS.get(kind, kind)(optimizer)
    return optimizer, scheduler, Configured.of(optimizer, scheduler)


def steps_of(optimizer, scheduler, steps):
    """What each step is taken with: rate, betas and weight decay of every group."""
    taken = []
    for _ in range(steps):
        taken.append([(group["lr"], group["betas"], group["weight_decay"]) for group in optimizer.param_groups])
        optimizer.step()
        if scheduler:
            scheduler.step()
    return taken


def resumed(before, after):
    """What the steps are taken with that follow the fourth, when a run goes on in another configuration or the same."""
    old, old_scheduler, _ = before
    steps_of(old, old_scheduler, 4)
    new, scheduler, configured = after
    new.load_state_dict(old.state_dict())
    if scheduler:
        scheduler.load_state_dict(old_scheduler.state_dict())
    keep_configured(new, scheduler, configured)
    return steps_of(new, scheduler, 4)


def test_every_schedule_of_torch_is_looked_at():
    """But for the one that waits for a metric, which our modules do not give."""
    assert {*lr_scheduler.__all__} - {"LRScheduler", "ReduceLROnPlateau"} <= KINDS.keys()


@every_kind
def test_a_fresh_run_has_the_rates_and_betas_of_torch(kind):
    of_torch = steps_of(*built(kind)[:2], 8)
    optimizer, scheduler, configured = built(kind)
    keep_configured(optimizer, scheduler, configured)
    assert steps_of(optimizer, scheduler, 8) == of_torch


@every_kind
def test_a_resume_with_the_same_settings_changes_no_bit(kind):
    assert resumed(built(kind), built(kind)) == steps_of(*built(kind)[:2], 8)[4:]


@every_kind
def test_new_settings_win_over_those_of_the_checkpoint(kind):
    """As though they had been there from the beginning."""
    assert resumed(built(kind), built(kind, 0.5, 0.0)) == steps_of(*built(kind, 0.5, 0.0)[:2], 8)[4:]


def test_so_do_those_of_the_schedule_itself():
    lower = partial(OneCycleLR, max_lr=0.2, total_steps=20)
    assert resumed(built("OneCycleLR"), built(lower)) == steps_of(*built(lower)[:2], 8)[4:]


def test_a_schedule_that_ends_before_the_checkpoint_is_refused():
    shorter = partial(OneCycleLR, max_lr=0.9, total_steps=3)
    with pytest.raises(UserError, match="at the 4 steps of the checkpoint"):
        resumed(built("OneCycleLR"), built(shorter))
