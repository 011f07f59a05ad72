import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from lm.steps.schedules import EpochDecay, Warmup, keep_configured, settings
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


def resumed(scheduler_of, lr, decay):
    """An optimizer whose state comes from a run with lr 1.0 and weight decay 0.1, after 3 steps."""
    runs = []
    for rate, weight_decay, steps in ((1.0, 0.1, 3), (lr, decay, 0)):
        optimizer = AdamW([torch.ones(1, requires_grad=True)], lr=rate, weight_decay=weight_decay)
        configured = settings(optimizer)
        scheduler = scheduler_of(optimizer) if scheduler_of else None
        for _ in range(steps):
            optimizer.step()
            if scheduler:
                scheduler.step()
        runs.append((optimizer, scheduler, configured))
    (old, old_scheduler, _), (new, new_scheduler, configured) = runs
    new.load_state_dict(old.state_dict())
    if new_scheduler:
        new_scheduler.load_state_dict(old_scheduler.state_dict())
    keep_configured(new, new_scheduler, configured)
    return old, new, new_scheduler


@pytest.mark.parametrize(
    "kind", [None, lambda o: Warmup(o, 7), lambda o: EpochDecay(o, 0.9), lambda o: CosineAnnealingLR(o, 10)]
)
def test_a_resume_with_the_same_settings_changes_no_bit(kind):
    old, new, _ = resumed(kind, lr=1.0, decay=0.1)
    assert new.param_groups[0]["lr"] == old.param_groups[0]["lr"]
    assert settings(new) == settings(old)


@pytest.mark.parametrize(
    "kind", [None, lambda o: Warmup(o, 7), lambda o: EpochDecay(o, 0.9), lambda o: CosineAnnealingLR(o, 10)]
)
def test_new_settings_win_over_those_of_the_checkpoint(kind):
    old, new, scheduler = resumed(kind, lr=0.5, decay=0.0)
    group = new.param_groups[0]
    assert group["weight_decay"] == 0.0
    assert group["lr"] == pytest.approx(0.5 * old.param_groups[0]["lr"])
    if scheduler:
        new.step()
        scheduler.step()
        assert scheduler.base_lrs == [0.5]
        assert group["lr"] < 0.5
