"""Exact match and token F1: worked by hand, and against torchmetrics' SQuAD."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from metrics.qa import answer_accuracy, exact_match, token_f1
from text.qa import normalise_answer

CASES = [  # prediction, answers, EM, F1
    ("The Eiffel Tower!", ["Eiffel tower"], 1, 1),
    ("tower in Paris", ["Eiffel Tower"], 0, 0.4),  # P 1/3, R 1/2
    ("an", ["the"], 1, 0),  # nothing is left of either
    ("3 3 4", ["3 4 4"], 0, 2 / 3),  # a multiset: {3, 4} of three each
    ("Paris", ["London", "Paris, France"], 0, 2 / 3),  # the best answer, not the mean
    ("U.S.A.", ["usa"], 1, 1),
    ("", ["Paris"], 0, 0),
    ("Beyoncé", ["beyonce"], 0, 0),  # accents count
]


@pytest.mark.parametrize(("prediction", "answers", "em", "f1"), CASES)
def test_scores_worked_by_hand(prediction, answers, em, f1):
    assert exact_match(prediction, answers) == em
    assert token_f1(prediction, answers) == pytest.approx(f1, abs=1e-12)


SOME = ["the", "a", "an", "Paris", "paris,", "London.", "3", "3.5", "(x)", "a's", "theatre“"]
WORDS = st.lists(st.sampled_from(SOME), max_size=5)
TEXTS = WORDS.map(" ".join)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_scores_are_those_of_torchmetrics(prediction, answers):
    theirs = squad(
        [{"prediction_text": prediction, "id": "0"}], [{"answers": {"text": answers, "answer_start": [0]}, "id": "0"}]
    )
    assert exact_match(prediction, answers) == pytest.approx(float(theirs["exact_match"]) / 100)
    if normalise_answer(prediction) or all(map(normalise_answer, answers)):  # theirs calls nothing of both 1
        assert token_f1(prediction, answers) == pytest.approx(float(theirs["f1"]) / 100, abs=1e-6)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_order_of_answers_does_not_matter(prediction, answers):
    mixed = random.Random(0).sample(answers, len(answers))
    for score in (exact_match, token_f1, answer_accuracy):
        assert score(prediction, answers) == score(prediction, mixed)


@pytest.mark.parametrize("score", [exact_match, token_f1, answer_accuracy])
@pytest.mark.parametrize("answers", [[], "Paris"])
def test_answers_are_a_list_of_at_least_one(score, answers):
    with pytest.raises(ValueError, match="list of at least one text"):
        score("Paris", answers)


def test_an_answer_within_a_reply_is_whole_words():
    assert answer_accuracy("It is the Eiffel Tower, I think.", ["eiffel tower"]) == 1
    assert answer_accuracy("a virus", ["us"]) == 0
    assert answer_accuracy("anything", ["the"]) == 0
