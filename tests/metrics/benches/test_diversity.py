"""ROUGE-L and dist-n, worked by hand and held to torchmetrics and to the table of the textbook."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.text import rouge_score

from metrics.benches.diversity import DistinctN, PersonalDiversity, distinct_n, lcs_length, rouge_l

WORDS = st.lists(st.sampled_from("abcde"), max_size=40)


def test_rouge_l_by_hand():
    """Acceptance 7."""
    assert rouge_l("a b c d", "a c d e") == 0.75
    assert rouge_l("A b", "a  B\n") == 1
    assert rouge_l("a b", "c d") == 0
    assert rouge_l("a b c d", "a") == pytest.approx(2 * 1 * 0.25 / 1.25)
    assert (rouge_l("", ""), rouge_l("", "a")) == (1, 0)


@given(WORDS, WORDS)
def test_the_common_subsequence_is_that_of_the_table(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if word == other else max(table[i][j + 1], table[i + 1][j])
    assert lcs_length(first, second) == table[-1][-1]


@pytest.mark.parametrize(("first", "second"), [("the cat sat on the mat", "on the mat the cat"), ("a b a b", "b a a")])
def test_rouge_l_is_that_of_torchmetrics(first, second):
    theirs = rouge_score(first, second, rouge_keys="rougeL", normalizer=str.lower, tokenizer=str.split)
    assert rouge_l(first, second) == pytest.approx(float(theirs["rougeL_fmeasure"]), abs=1e-6)


def test_personal_diversity():
    metric = PersonalDiversity()
    metric.update([["a b c d", "a c d e", "x"], ["only one"]])
    metric.update([["same", "same"]])
    assert metric.compute() == pytest.approx({"rouge_l": (0.25 + 1) / 2, "rouge_l_max": (0.75 + 1) / 2})


def test_distinct_n():
    """Acceptance 8: over words, not over n-grams."""
    assert distinct_n(["a b a b", "a b c"], 2) == pytest.approx(3 / 7)
    assert distinct_n(["a b a b", "A B c"], 1) == pytest.approx(3 / 7)
    assert math.isnan(distinct_n(["", " "], 2))
    metric = DistinctN(2)
    metric.update([["a b a b", "a b c"], [""], ["a b"]])
    assert float(metric.compute()) == pytest.approx((3 / 7 + 1 / 2) / 2)
