"""Votes and chances by hand, by counting all draws, and over ranks."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.reasoning.reasoning import (
    AnswerAccuracy,
    CutOff,
    MajorityAtK,
    PassAtK,
    Unparsed,
    accuracy_report,
    majority,
    pass_at_k,
)
from text.reasoning.answers import MathChecker, NumberChecker
from text.reasoning.reasoning_records import AnswerRecord

NUMBERS = NumberChecker()


def test_of_a_tie_the_first_seen_wins():
    assert majority(["3", "4", "4", None, "3"], NUMBERS) == "3"
    assert majority(["3", "4", "4.0", None, "3", "4"], NUMBERS) == "4"
    assert majority([None, None], NUMBERS) is majority([], NUMBERS) is None


def test_equal_answers_vote_together():
    assert majority(["2", "1/2", "0.5"], MathChecker()) == "1/2"


@given(st.integers(1, 7), st.data())
def test_pass_at_k_counts_all_draws(n, data):
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations(range(n), k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(min(draw) < right for draw in draws) / len(draws), abs=1e-12)


def test_pass_at_2_of_4():
    assert pass_at_k(4, 1, 2) == 0.5
    for wrong in ((4, 1, 5), (4, 1, 0), (4, 5, 2), (4, -1, 2)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(*wrong)


def updated(metric, rows):
    for row in rows:
        metric.update(*row)
    return metric


QUESTIONS = [
    ("3", ["3", "4", "4", None, "3"]),
    ("4", ["3", "4", "4", None, "3"]),
    ("5", [None] * 5),
    ("6", ["7", "6", "6.0", "8", None]),
]


@pytest.mark.parametrize(
    ("make", "rows", "expected"),
    [
        (lambda: AnswerAccuracy(NUMBERS), [(answers[0], gold) for gold, answers in QUESTIONS], 1 / 4),
        (Unparsed, [(answers[0],) for _, answers in QUESTIONS], 1 / 4),
        (lambda: MajorityAtK(5, NUMBERS), [(answers, gold) for gold, answers in QUESTIONS], 2 / 4),
        (lambda: MajorityAtK(1, NUMBERS), [(answers, gold) for gold, answers in QUESTIONS], 1 / 4),
        (lambda: PassAtK(2), [(4, 1), (4, 0), (2, 2), (4, 3)], (0.5 + 0 + 1 + 1) / 4),
    ],
)
def test_ranks_add_up(make, rows, expected):
    whole, parts = updated(make(), rows), [updated(make(), rows[:3]), updated(make(), rows[3:])]
    assert float(whole.compute()) == expected
    for name in ("total", "questions"):  # both are reduced by a sum over ranks
        assert whole._reductions[name](whole.metric_state[name][None]) == whole.metric_state[name]
        assert sum(part.metric_state[name] for part in parts) == whole.metric_state[name]
    whole.reset()
    assert whole.questions == 0


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="maj@3 of 2"):
        MajorityAtK(3, NUMBERS).update(["1", "2"], "1")


def test_accuracy_is_told_by_subject_and_level():
    kinds = [("Algebra", "Level 1"), ("Algebra", "Level 5"), ("Geometry", "Level 5"), (None, None)]
    answers = [
        AnswerRecord(id=str(n), gold="1", correct=n % 2 == 0, subject=subject, level=level)
        for n, (subject, level) in enumerate(kinds)
    ]
    rows = [line.split(" | ") for line in accuracy_report(answers).splitlines() if line.startswith("| ")]
    told = {row[0].removeprefix("| "): (row[1], row[2].split()[0]) for row in rows[2:]}
    assert told == {
        "all": ("4", "50.0"),
        "subject Algebra": ("2", "50.0"),
        "subject Geometry": ("1", "100.0"),
        "Level 1": ("1", "100.0"),
        "Level 5": ("2", "50.0"),
    }
    assert "level 3" in accuracy_report([AnswerRecord(id="1", gold="1", correct=True, level=3)])


def test_a_report_says_how_many_answers_were_cut_off():
    known = {"gold": "1", "correct": False}
    answers = [AnswerRecord(id="1", finish="length", **known), AnswerRecord(id="2", answer="2", **known)]
    assert "1 of 2 answers were cut off by the limit of tokens, and in 1 no answer could be read" in accuracy_report(
        answers
    )
    metric = CutOff()
    for finished in (True, False, True, True):
        metric.update(finished)
    assert metric.compute() == 0.25
