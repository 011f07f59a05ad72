"""Scores of answers in sentences: by hand, and beside torchmetrics where it has them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import rouge_score

from metrics.qa.long_answers import best_rouge_l, claim_recall, label_accuracy, string_match

TEXTS = st.text(alphabet="ab.B -\n", max_size=12)
WORDS = TEXTS.filter(lambda text: any(map(str.isalnum, text)))


def test_rouge_l_by_hand():
    # "the cat sat" beside "the dog sat down": two words of three and four
    assert best_rouge_l("The cat sat!", ["nothing", "the dog, sat down."]) == pytest.approx(2 * 2 / (3 + 4))
    assert best_rouge_l("anything", []) is None


@settings(max_examples=50, deadline=None)
@given(TEXTS.filter(str.strip), st.lists(WORDS, min_size=1, max_size=3))
def test_rouge_l_is_that_of_torchmetrics(said, references):
    theirs = rouge_score([said], [references], accumulate="best", rouge_keys="rougeL")["rougeL_fmeasure"]
    assert best_rouge_l(said, references) == pytest.approx(float(theirs), abs=1e-6)


def test_string_match_by_hand():
    assert string_match("It was Rome, in 1990.", [["roma", "The Rome"], ["1991"], ["199"]]) == (pytest.approx(2 / 3), 0)
    assert string_match("Rome in 1990", [["Rome"], ["1990", "1991"]]) == (1, 1)
    assert string_match("Rome", []) == (None, None)


def test_claim_recall_by_hand():
    def entails(pairs):
        return [claim in said for said, claim in pairs]

    assert claim_recall("a b", ["a", "b", "c", "d"], entails) == 0.5
    assert claim_recall("a b", [], entails) is None


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [
        ("SUPPORTS", ["SUPPORTS"], 1),
        ("That is true.", ["SUPPORTS"], 1),
        ("refutes", ["SUPPORTS"], 0),
        ("Supports, no: refutes", ["SUPPORTS"], 0),
        ("", ["REFUTES"], 0),
        ("It is untrue", ["SUPPORTS"], 0),
        ("true", ["true"], None),
        ("true", [], None),
    ],
)
def test_labels_of_fever(said, answers, score):
    assert label_accuracy(said, answers) == score
