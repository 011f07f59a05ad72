"""Candidates, verdicts and conclusions in what models write: the cases of the official code's bugs, and our own."""

import pytest

from text.qa.verdicts import (
    parse_answer,
    parse_candidates,
    parse_conclusion,
    parse_order,
    parse_ranking,
    parse_summary,
    parse_validity,
)


@pytest.mark.parametrize(
    ("text", "texts", "form"),
    [
        ("(a) Paris, (b) London.", ["Paris", "London"], "ok"),
        ("(a) Paris (b) paris", ["Paris"], "single"),  # the same once normalised
        ("(b) x", ["x"], "unmarked"),
        ("**(a)** Paris, **(b)** London", ["Paris", "London"], "ok"),
        ("", [], "empty"),
        ("(a) (b)", [], "empty"),
        ("Paris, London", ["Paris", "London"], "unmarked"),
        ("It is, I think, one, or two, or three.", ["It is, I think, one, or two, or three"], "unmarked"),
        ("(a) Washington, D.C. (b) N/A", ["Washington, D.C"], "single"),
        ("(a) 1999 (original), (b) 2001", ["1999 (original)", "2001"], "ok"),
        ("(a) x\nbecause ... (b) y", ["x", "y"], "ok"),
        ("Candidates: (A) “Paris”; (B) Rome; (C) Oslo", ["Paris", "Rome"], "ok"),
        ("(a) x (c) y", ["x (c) y"], "single"),  # (c) does not follow (a)
        ("(b) Paris (a) London", ["London", "Paris"], "ok"),
        ("(a)Paris(b)London", ["Paris", "London"], "ok"),
        ("(a) f(a) = 1, (b) f(b) = 2", ["f(a) = 1", "f(b) = 2"], "ok"),
        ("(a) f(b) is odd", ["f(b) is odd"], "single"),
    ],
)
def test_candidates(text, texts, form):
    assert parse_candidates(text, 2) == (texts, form)


def test_more_candidates_are_kept_where_more_are_asked_for():
    assert parse_candidates("(a) 1 (b) 2 (c) 3 (d) 4", 3).texts == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("True.", True),
        ("false, because", False),
        ("The answer is True", True),
        ("\n Yes", True),
        ("It cannot be determined", None),
        ("True or False", True),
        ("Untrue", None),
        ("It is not true.", False),
        ("That isn't true", False),
        ("not false", True),
        ("No, it is not true", False),
        ("", None),
        ("well\nTrue", None),  # only the first line counts
    ],
)
def test_validity(text, verdict):
    assert parse_validity(text) is verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Passage 2", 2),
        (" passage 1.", 1),
        ("**Passage #1**", 1),
        ("Passage 2 is better than Passage 1", None),
        ("Passage 1 and 2", None),
        ("1", 1),
        ("**2**", 2),
        ("Passage 12", None),
        ("n", None),
        ("3", None),
    ],
)
def test_ranking(text, verdict):
    assert parse_ranking(text) == verdict


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("2 > 3 > 1", [1, 2, 0]),
        ("[3] > [1] > [2]\n[1]", [2, 0, 1]),
        ("Passage 2 is best", [1, 0, 2]),  # the others follow in their order
        ("2 > 2 > 7 > 0 > 1", [1, 0, 2]),  # the first mention; there is no 7 and no 0
        ("all of them", None),
        ("7", None),
        ("", None),
    ],
)
def test_order(text, order):
    assert parse_order(text, 3) == order


def test_answers_conclusions_and_summaries():
    assert parse_answer("\n  'Paris.'\nIt is in France") == "Paris"
    assert parse_answer("  \n") == ""
    assert parse_conclusion("So the answer is Rome? No. The answer is: Paris.") == "Paris"
    assert parse_conclusion("It is Paris") is None
    assert parse_conclusion("The answer is ...") is None
    assert parse_summary(" A text.\nMore. [DONE] and so on") == "A text.\nMore."
