"""The numbers of judges that need no model, on the judgments published with arXiv 2405.01535, to the printed digits."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from metrics.judging import (
    JudgeCorrelation,
    PairwiseAccuracy,
    PositionConsistency,
    ScoreAccuracy,
    kendall,
    krippendorff_alpha,
    pairwise_accuracy,
    pearson,
    spearman,
)
from tests.shared_data import evaluator_records

SOURCES = ("helpful", "harmless", "honest", "other")


def words(text):
    return len(text.split())


def length_judge(text):
    return 1 + min(4, words(text) // 50)


@pytest.fixture(scope="module")
def vicuna():
    return evaluator_records("vicuna_eval")


@pytest.fixture(scope="module")
def hhh():
    return evaluator_records("hhh_alignment_eval")


@pytest.fixture(scope="module")
def runs(vicuna):
    return torch.tensor([record["scores"] for record in vicuna], dtype=torch.float64).T


def coefficients(x, y):
    return [round(float(one(x, y)), 4) for one in (pearson, spearman, kendall)]


@pytest.mark.parametrize(
    ("one", "other", "expected", "same"),
    [
        (0, 1, [0.7992, 0.6894, 0.6671], 0.7281),
        (0, 2, [0.8043, 0.7276, 0.7026], 0.7438),
        (1, 2, [0.8221, 0.7529, 0.7276], 0.7656),
    ],
)
def test_runs_of_one_judge(runs, one, other, expected, same):
    assert coefficients(runs[one], runs[other]) == expected
    metric = ScoreAccuracy()
    metric.update(runs[one], runs[other])
    assert round(metric.compute()["accuracy"], 4) == same


def test_three_runs(runs):
    assert [round(float(mean), 4) for mean in (*runs.mean(1), runs.mean())] == [4.1406, 4.1688, 4.1281, 4.1458]
    assert Counter(runs.flatten().long().tolist()) == {1: 12, 2: 41, 3: 80, 4: 489, 5: 338}
    assert round(float((runs == runs[0]).all(0).double().mean()), 4) == 0.6219
    expected = {"ordinal": 0.7234, "interval": 0.8075, "nominal": 0.5822}
    assert {level: round(float(krippendorff_alpha(runs, level)), 4) for level in expected} == expected


def test_a_judge_that_counts_words(vicuna, runs):
    judged = torch.tensor([length_judge(record["response"]) for record in vicuna], dtype=torch.float64)
    assert Counter(judged.long().tolist()) == {1: 1, 2: 13, 3: 13, 4: 27, 5: 266}
    assert coefficients(judged, runs.mean(0)) == [0.1978, 0.2272, 0.1999]
    assert coefficients(judged, runs[0]) == [0.1517, 0.1687, 0.1579]
    counted = torch.tensor([words(record["response"]) for record in vicuna])
    assert coefficients(counted, runs.mean(0)) == [0.2947, 0.3698, 0.2812]
    accuracy = ScoreAccuracy()
    accuracy.update(judged, runs[0])
    assert round(accuracy.compute()["accuracy"], 4) == 0.3719
    metric = JudgeCorrelation(("vicuna", "chat_gpt", "wizard", "llama-2-chat"))
    metric.update(judged, [record["scores"] for record in vicuna], [record["response_source"] for record in vicuna])
    found = metric.compute()
    assert [round(found[name], 4) for name in ("pearson", "spearman", "kendall")] == [0.1978, 0.2272, 0.1999]
    assert (found["n"], found["wizard/n"]) == (320, 80)


@pytest.mark.parametrize(
    ("judge", "counts", "expected", "by_source", "macro"),
    [
        (words, (128, 12), (0.5792, 0.6063, 0.6124), (0.6102, 0.6034, 0.6557, 0.3953), 0.5662),
        (len, (139, 2), (0.6290, 0.6335, 0.6347), (0.6949, 0.6207, 0.6393, 0.5349), 0.6225),
        (length_judge, (49, 154), (0.2217, 0.5701, 0.7313), (0.3051, 0.0862, 0.3443, 0.1163), 0.2130),
    ],
)
def test_which_is_longer(hhh, judge, counts, expected, by_source, macro):
    margins = torch.tensor([judge(record["chosen"]) - judge(record["rejected"]) for record in hhh])
    assert (int((margins > 0).sum()), int((margins == 0).sum())) == counts
    gold, sources = ["A"] * len(hhh), [record["source"] for record in hhh]
    rules = ("wrong", "half", "excluded")
    assert tuple(round(float(pairwise_accuracy(gold, margins, rule)), 4) for rule in rules) == expected
    metric, orders = PairwiseAccuracy(SOURCES), PositionConsistency()
    for low, high in [(0, 90), (90, 221)]:
        metric.update(gold[low:high], margins[low:high], sources[low:high])
    found = metric.compute()
    assert tuple(round(found[f"{source}/acc_no_tie"], 4) for source in SOURCES) == by_source
    assert round(found["mean/acc_no_tie"], 4) == macro
    assert [found[f"{source}/n"] for source in SOURCES] == [59, 58, 61, 43]
    orders.update(margins, margins, gold)
    assert [orders.compute()[name] for name in ("consistency", "first_bias")] == [1, 0]
