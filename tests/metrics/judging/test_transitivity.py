"""Transitivity: cycles by hand, and the weights of the official script."""

import math

import pytest
import torch

from metrics.judging import Transitivity, transitivity


def verdicts(n, **wins):
    """Margins of n responses; ``_12=1``: 1 over 2."""
    table = torch.full((n, n), math.nan)
    for pair, margin in wins.items():
        i, j = (int(digit) - 1 for digit in pair[1:])
        table[i, j], table[j, i] = margin, -margin
    return table


def test_a_cycle_and_orders():
    assert transitivity(verdicts(3, _12=1, _23=1, _31=1)) == 0
    assert transitivity(verdicts(3, _12=1, _23=1, _13=1)) == 1
    assert transitivity(verdicts(3, _12=-1, _23=-1, _13=-1)) == 1
    assert transitivity(verdicts(3, _12=-1, _23=-1, _13=1)) == 0


def test_ties():
    assert transitivity(verdicts(3, _12=0, _23=0, _13=0)) == 1
    assert transitivity(verdicts(3, _12=0, _23=1, _13=1)) == 1
    assert transitivity(verdicts(3, _12=1, _23=0, _13=0)) == 0  # both equal the third


def test_what_was_not_judged():
    assert transitivity(verdicts(3, _12=1, _23=1)).isnan()
    # of four triples only 1 2 3 is judged in full
    assert transitivity(verdicts(4, _12=1, _23=1, _31=1, _14=1)) == 0


def test_any_scores_make_an_order():
    scores = torch.randint(0, 4, (7,), generator=torch.Generator().manual_seed(0))
    assert transitivity(scores[:, None] - scores) == 1


def test_over_instructions_and_ranks():
    first, second = Transitivity(), Transitivity()
    first.update(verdicts(3, _12=1, _23=1, _31=1))
    second.update(torch.arange(4)[:, None] - torch.arange(4))
    first.merge_state(second)
    assert float(first.compute()) == pytest.approx(4 / 5)


def test_official():
    gold = torch.arange(1, 6)
    metric = Transitivity(official=True)
    metric.update(gold[:, None] - gold, gold)
    assert metric.compute() == 1
    assert metric.n == 10
    wrong = (gold[:, None] - gold).double()
    wrong[0, 4], wrong[4, 0] = 1, -1  # three responses lie between them
    wrong[0, 2] = 0  # one does
    metric.update(wrong, gold)
    assert float(metric.compute()) == pytest.approx(16 / 20)
    with pytest.raises(ValueError, match="gold"):
        metric.update(wrong)
