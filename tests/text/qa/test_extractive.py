"""Sentences that support a prediction."""

import pytest

from text.qa.extractive import sentences, supporting_sentence
from text.qa.qa_records import Shown

PASSAGES = [
    Shown("Oslo", "Oslo is a city. It has 700,000 people, says Dr. Who!"),
    Shown("Bergen", "Bergen is wet. Oslo is dry"),
    Shown("A title without text", ""),
]


@pytest.mark.parametrize(
    ("prediction", "sentence", "held"),
    [
        ("oslo", "Oslo is a city.", True),  # the first of several
        ("wet", "Bergen is wet.", True),
        ("dry", "Oslo is dry", True),
        ("text", "A title without text", True),
        ("Rome", "It has 700,000 people, says Dr.", False),  # most words of the question
        ("wat", "It has 700,000 people, says Dr.", False),  # whole words only
    ],
)
def test_the_first_sentence_that_holds_it(prediction, sentence, held):
    assert supporting_sentence(PASSAGES, prediction, "how many people has Oslo") == (sentence, held)


def test_sentences_cover_the_text():
    assert [*sentences('He said "no." Then? Yes! and on')] == ['He said "no."', "Then?", "Yes!", "and on"]
    assert [*sentences("no end")] == ["no end"]
