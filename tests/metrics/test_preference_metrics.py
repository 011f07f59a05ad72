"""Metrics of pairs by hand, and how batches add up."""

import pytest
import torch

from metrics.preference_metrics import (
    ChosenDisplacement,
    LengthBiasAccuracy,
    LengthMatchedAccuracy,
    PreferenceAccuracy,
    RewardMargin,
    preference_metrics,
)

CHOSEN = torch.tensor([1.0, 0.0, 2.0, -1.0])
REJECTED = torch.tensor([0.0, 0.0, 3.0, -2.5])
CHOSEN_LENGTHS = torch.tensor([10, 8, 100, 5])
REJECTED_LENGTHS = torch.tensor([8, 10, 81, 5])  # differ by 20, 20, 19 and 0 % of the longer


def value(metric, *args):
    metric.update(*args)
    return metric.compute().item()


def test_a_tie_is_no_success():
    assert value(PreferenceAccuracy(), CHOSEN, REJECTED) == 0.5


def test_margin():
    assert value(RewardMargin(), CHOSEN, REJECTED) == pytest.approx((1 + 0 - 1 + 1.5) / 4)


def test_longer_is_better():
    assert value(LengthBiasAccuracy(), CHOSEN_LENGTHS, REJECTED_LENGTHS) == 0.5


def test_matched_lengths_differ_by_less_than_a_fifth():
    args = CHOSEN, REJECTED, CHOSEN_LENGTHS, REJECTED_LENGTHS
    assert value(LengthMatchedAccuracy(), *args) == 0.5  # of the third and the fourth pair
    assert value(LengthMatchedAccuracy(within=0.21), *args) == 0.5  # of all four
    assert value(LengthMatchedAccuracy(within=0.1), *args) == 1  # of the fourth alone


def test_displacement():
    assert value(
        ChosenDisplacement(), torch.tensor([-5.0, -3.0, -4.0]), torch.tensor([-4.0, -3.0, -6.0])
    ) == pytest.approx(1 / 3)


def test_nothing_to_measure_is_not_zero():
    matched = LengthMatchedAccuracy()
    assert torch.isnan(torch.tensor(value(matched, CHOSEN[:1], REJECTED[:1], CHOSEN_LENGTHS[:1], REJECTED_LENGTHS[:1])))


def test_unequal_batches_weigh_by_their_pairs():
    metrics = preference_metrics("val/")
    logps = {
        "chosen_logps": torch.tensor([-5.0, -3.0, -4.0, -1.0]),
        "ref_chosen_logps": torch.tensor([-4.0, -3.0, -6.0, -0.5]),
    }
    rows = {
        "chosen_rewards": CHOSEN,
        "rejected_rewards": REJECTED,
        "chosen_lengths": CHOSEN_LENGTHS,
        "rejected_lengths": REJECTED_LENGTHS,
        **logps,
    }
    for part in (slice(0, 3), slice(3, 4)):
        metrics.update(**{name: tensor[part] for name, tensor in rows.items()})
    assert {name: found.item() for name, found in metrics.compute().items()} == pytest.approx(
        {
            "val/rewards/accuracy": 0.5,
            "val/rewards/margin": 0.375,
            "val/length_bias_accuracy": 0.5,
            "val/accuracy_len_matched": 0.5,
            "val/chosen_likelihood_displacement": 0.5,
        }
    )
    assert "val/chosen_likelihood_displacement" not in preference_metrics("val/", reference=False)
    states = [state for metric in metrics.values() for state in metric._reductions.values()]
    assert {reduction.__name__ for reduction in states} == {"dim_zero_sum"}
