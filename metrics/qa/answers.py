"""Exact match and token F1 of a predicted answer, by the rules of SQuAD (arXiv 1606.05250, section 5).

A question has several answers, any of which counts: a score is the best over them. Scores are of one question, between
0 and 1; a data set's is their mean. This file knows strings, normalised by text/qa/answers.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from text.qa.answers import contains_answer, normalise_answer


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals an answer once both are normalised, else 0.

    Args:
        prediction: what was answered; "" for nothing.
        answers: at least one.

    Raises:
        ValueError: without answers: nothing is right or wrong then.
    """
    return _best(prediction, answers, lambda said, right: float(said == right))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 of the prediction's words against those of an answer, as multisets, once both are normalised.

    0 where no word is common, also where nothing is left of both (as in SQuAD 1.1; version 2.0 calls that 1).

    Args:
        prediction: what was answered; "" for nothing.
        answers: at least one.

    Raises:
        ValueError: without answers.
    """
    return _best(prediction, answers, _f1)


def answer_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction has an answer in it, as whole words, else 0: what a long reply is scored by.

    Args:
        prediction: what was answered.
        answers: at least one.

    Raises:
        ValueError: without answers.
    """
    return _best(prediction, answers, lambda said, right: float(contains_answer(said, [right])))


def _best(prediction: str, answers: Sequence[str], score: Callable[[str, str], float]) -> float:
    if isinstance(answers, str) or not answers:
        raise ValueError(f"answers must be a list of at least one text, not {answers!r}")
    said = normalise_answer(prediction)
    return max(score(said, normalise_answer(answer)) for answer in answers)


def _f1(said: str, right: str) -> float:
    said_words, right_words = said.split(), right.split()
    common = (Counter(said_words) & Counter(right_words)).total()
    return 2 * common / (len(said_words) + len(right_words)) if common else 0.0
