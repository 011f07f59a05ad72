"""What an answer in sentences is worth: the measures of ASQA, ELI5 and FEVER, as ALCE and KILT take them.

Scores are of one question, between 0 and 1, or None where they have no meaning. This file knows strings. It does not
know who wrote them, nor who says what follows from what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from metrics.benches.diversity import rouge_l
from text.qa.answers import normalise_answer

_NO_WORD = re.compile(r"[^a-z0-9]+")
_SIDES = {"SUPPORTS": frozenset(("supports", "true")), "REFUTES": frozenset(("refutes", "false"))}
"""Labels of FEVER and the words by which an answer gives them, as the official code of 2403.09024 reads it."""


def best_rouge_l(prediction: str, references: Sequence[str]) -> float | None:
    """The best ROUGE-L F1 of a prediction over references (KILT, arXiv 2009.02252); None without references.

    Words are runs of ASCII letters and digits in small letters, without stemming, as in Google's rouge_score.
    """
    said = _NO_WORD.sub(" ", prediction.lower())
    return max((rouge_l(said, _NO_WORD.sub(" ", text.lower())) for text in references), default=None)


def string_match(prediction: str, short_answers: Sequence[Sequence[str]]) -> tuple[float | None, float | None]:
    """``str_em`` and ``str_hit`` of ASQA (ALCE, 2305.14627, section 3): shares of sub-questions that are answered, all?

    A sub-question is answered if one of its answers is a part of the prediction once both are normalised. As in ALCE
    it may begin or end within a word; `metrics.qa.answers.answer_accuracy` asks for whole words.

    Args:
        prediction: what was answered.
        short_answers: of each sub-question; without any there is no score.
    """
    if not short_answers:
        return None, None
    said = normalise_answer(prediction)
    answered = [any(normalise_answer(answer) in said for answer in answers) for answers in short_answers]
    return sum(answered) / len(answered), float(all(answered))


def claim_recall(
    prediction: str, claims: Sequence[str], entails: Callable[[Sequence[tuple[str, str]]], Sequence[bool]]
) -> float | None:
    """Share of claims that follow from a prediction (ELI5 of ALCE, section 3); None without claims.

    Args:
        prediction: what was answered.
        claims: of the reference.
        entails: says of pairs of premise and hypothesis whether the second follows from the first.
    """
    if not claims:
        return None
    return sum(map(bool, entails([(prediction, claim) for claim in claims]))) / len(claims)


def label_accuracy(prediction: str, answers: Sequence[str]) -> float | None:
    """1 if a prediction gives the right label of FEVER and not the other, else 0; None if answers are no such labels.

    Args:
        prediction: words of a label, or a sentence with one of them in it.
        answers: right ones; ``SUPPORTS`` or ``REFUTES`` (KILT has no third label).
    """
    if not answers or not _SIDES.keys() >= {*answers}:
        return None
    words = {*normalise_answer(prediction).split()}
    return float({label for label, side in _SIDES.items() if words & side} == {*answers})
