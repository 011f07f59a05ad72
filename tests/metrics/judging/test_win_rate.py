"""Win rates: the published leaderboard to 1e-9, and small cases by hand."""

import json
import math

import pytest
import torch

from metrics.judging.win_rate import WinRate
from tests.shared_data import SHARED
from text.errors import UserError

PUBLISHED = SHARED / "alpaca_eval_pairs"
KEYS = ["win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "ci_low", "ci_high"]


def win_rate(preferences, **settings):
    metric = WinRate(**settings)
    metric.update(preferences)
    return metric.compute()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the AlpacaEval records (non-commercial, not shipped)")
@pytest.mark.parametrize("model", ["alpaca-7b", "vicuna-13b", "zephyr-7b-beta", "text_davinci_001"])
def test_published_leaderboard(model):
    records = [json.loads(line) for line in (PUBLISHED / f"{model}.jsonl").read_text().splitlines()]
    published = json.loads((PUBLISHED / "expected_leaderboard.json").read_text())[model]
    metric = WinRate()
    metric.update([record["preference"] for record in records])
    ours = metric.compute()
    for key in ("win_rate", "standard_error"):
        assert ours[key] == pytest.approx(published[key], abs=1e-9)
    for key in ("n_wins", "n_wins_base", "n_draws", "n_total"):
        assert ours[key] == published[key]
    assert metric.n_dropped == len(records) - published["n_total"]
    assert ours["ci_low"] < ours["win_rate"] < ours["ci_high"]
    # with 805 verdicts the four imagined ones hardly matter: 2 x 1.96 standard errors
    assert (ours["ci_high"] - ours["ci_low"]) / (3.92 * ours["standard_error"]) == pytest.approx(1, abs=0.02)


def test_by_hand():
    found = win_rate([2, 2, 1, 1.5, 0, None, math.nan])  # scores 1, 1, 0, 1/2, 1/2
    assert list(found) == KEYS
    assert found["win_rate"] == pytest.approx(60)
    # squared deviations .16 .16 .36 .01 .01 sum to .7; 100 sqrt(.7 / 4 / 5)
    assert found["standard_error"] == pytest.approx(100 * math.sqrt(0.7 / 20))
    assert [found[k] for k in ("n_wins", "n_wins_base", "n_draws", "n_total")] == [2, 1, 2, 5]
    assert all(type(value) in (int, float) for value in found.values())


def test_scores():
    assert win_rate([1, 1, 0, 0.5, 0.5, None], convention="score") == win_rate([2, 2, 1, 1.5, 0, None])
    assert win_rate([0.9, 0.2], convention="score")["n_wins"] == 1


def test_probabilities_of_winning():
    found = win_rate([1.75, 1.25, 1.5, 2.0])
    assert found["win_rate"] == pytest.approx(62.5)
    assert [found[k] for k in ("n_wins", "n_wins_base", "n_draws")] == [2, 1, 1]


def test_any_order_and_any_batches_give_the_same_numbers():
    verdicts = [*[2] * 31, *[1] * 17, *[0] * 3, None, *(1 + i / 41 for i in range(42))]
    whole = win_rate(verdicts)
    parts = WinRate()
    for low in range(0, len(verdicts), 10):
        parts.update(verdicts[::-1][low : low + 10])
    assert parts.compute() == whole  # bit for bit
    assert parts.n_dropped == 1


def test_two_ranks_are_one():
    first, second = WinRate(), WinRate()
    first.update([2, 2, None])
    second.update([1, 1.5])

    def gather(state, group):
        return [state, torch.cat(second.scores) if state.is_floating_point() else second.unread]

    first.dist_sync_fn, first.distributed_available_fn = gather, lambda: True
    assert first.compute() == win_rate([2, 2, None, 1, 1.5])
    assert first.n_dropped == 1


def test_too_few_verdicts_have_no_error():
    one = win_rate([2])
    assert one["win_rate"] == 100
    assert math.isnan(one["standard_error"])
    assert math.isnan(one["ci_low"])
    none = win_rate([None])
    assert none["n_total"] == 0
    assert math.isnan(none["win_rate"])


def test_three_wins_are_no_proof():
    found = win_rate([2, 2, 2])
    assert (found["win_rate"], found["ci_high"]) == (100, 100)
    assert found["ci_low"] < 50
    draws = win_rate([1.5] * 3)
    assert draws["ci_low"] < 50 < draws["ci_high"]


def test_reset_forgets():
    metric = WinRate()
    metric.update([1, 1])
    metric.reset()
    metric.update([2])
    assert metric.compute()["n_total"] == 1


@pytest.mark.parametrize(("value", "convention"), [(3, "alpaca"), (0.5, "alpaca"), (2, "score"), (-1, "score")])
def test_a_number_that_is_no_verdict(value, convention):
    with pytest.raises(UserError, match=rf"{float(value)} is no verdict.*{convention}"):
        win_rate([1, value], convention=convention)


def test_unknown_convention():
    with pytest.raises(UserError, match="alpaca"):
        WinRate(convention="elo")
