"""What answers that cite are worth: was the passage found, read and cited, and does it support what is said?

Scores are of one question, between 0 and 1, or None where they have no meaning; a data set's are means over the others
(metrics/citing_report.py). This file knows strings and ids. It does not know who wrote, searched, or says what follows
from what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from metrics.qa.answers import answer_accuracy, exact_match, token_f1
from metrics.qa.long_answers import best_rouge_l, claim_recall, label_accuracy, string_match
from text.citing.citations import Piece, said, units
from text.qa.answers import contains_answer

SCORES = (
    "retrieval@1",
    "retrieval@10",
    "reading",
    "answer_em",
    "answer_f1",
    "answer_presence",
    "rouge_l",
    "str_em",
    "str_hit",
    "claim_recall",
    "label_accuracy",
    "answered",
    "answer_in_passage",
    "passage_precision",
    "set_precision",
    "set_recall",
    "set_f1",
    "set_em",
    "set_hit",
    "citation_recall",
    "citation_precision",
    "joint",
    "answered_joint",
    "answered_given_right",
    "answered_given_wrong",
    "emitted",
)
"""All that is told of a question, in the order of tables."""

BY_REFERENCE = ("str_em", "claim_recall", "label_accuracy")
"""Measures that are the set's own wherever a record has what they need: ASQA, ELI5 of ALCE, FEVER."""
BY_TASK = {"wow": "answer_f1", "eli5": "rouge_l"}
"""Those of sets whose records look like any other: Wizard of Wikipedia, and ELI5 of KILT."""


@dataclass(frozen=True)
class Told:
    """An answer and what is known of right ones.

    Args:
        pieces: that were written.
        retrieved: ids of the passages that were looked up and read, in order.
        passages: their texts, by id.
        answers: right ones.
        gold: ids of passages that support them.
        found: ids that the look-up right behind the question finds, best first.
        read: what was written behind the gold passage; None where there is none.
        long_answer: a reference in sentences.
        short_answers: right ones of each sub-question.
        claims: that an answer should entail.
        task: of the record, which may name its set.
        lost: the corpus has no gold passage, so that nobody could find one.
    """

    pieces: Sequence[Piece]
    retrieved: Sequence[str]
    passages: Mapping[str, str]
    answers: Sequence[str]
    gold: Sequence[str] = ()
    found: Sequence[str] = ()
    read: str | None = None
    long_answer: str | None = None
    short_answers: Sequence[Sequence[str]] = ()
    claims: Sequence[str] = ()
    task: str = ""
    lost: bool = False


def scores(told: Told, entails: Callable[[Sequence[tuple[str, str]]], Sequence[bool]]) -> dict[str, float | None]:
    """All `SCORES` of one question.

    Args:
        told: about the answer.
        entails: says of pairs of premise and hypothesis whether the second follows from the first.
    """
    output, texts = said(told.pieces), [*told.passages.values()]
    em, gold = exact_match(output, told.answers), set(told.gold)
    cited_recall, cited_precision = citation_scores(told.pieces, told.passages, entails)
    str_em, str_hit = string_match(output, told.short_answers)
    known: dict[str, float | None] = {
        "retrieval@1": _hit(told.found[:1], gold),
        "retrieval@10": _hit(told.found[:10], gold),
        "reading": None if told.read is None else exact_match(told.read, told.answers),
        "answer_em": em,
        "answer_f1": token_f1(output, told.answers),
        "answer_presence": answer_accuracy(output, told.answers),
        "rouge_l": best_rouge_l(output, told.answers if told.long_answer is None else [told.long_answer]),
        "str_em": str_em,
        "str_hit": str_hit,
        "claim_recall": claim_recall(output, told.claims, entails),
        "label_accuracy": label_accuracy(output, told.answers),
        "answer_in_passage": answer_in_passage(texts, told.answers),
        "passage_precision": passage_precision(texts, told.answers),
        "citation_recall": cited_recall,
        "citation_precision": cited_precision,
        "emitted": float(bool(told.retrieved)),
    }
    known |= set_retrieval(told.retrieved, told.gold)
    known["joint"] = None if known["set_hit"] is None else float(em > 0 and known["set_hit"] > 0)
    known |= _by_retrieval(told, known)
    return {name: known[name] for name in SCORES}


def _by_retrieval(told: Told, known: dict[str, float | None]) -> dict[str, float | None]:
    """The answer by its set's own measure: as it is, and told apart by whether a right passage was looked up.

    A right passage is a gold one, or one with an answer in it where there is no gold one to find.
    """
    answered = known[_own_measure(told, known)]
    assert answered is not None
    right = bool(known["answer_in_passage"] if told.lost or not told.gold else known["set_hit"])
    return {
        "answered": answered,
        "answered_joint": answered if right else 0.0,
        "answered_given_right": answered if right else None,
        "answered_given_wrong": None if right else answered,
    }


def _own_measure(told: Told, known: dict[str, float | None]) -> str:
    """By which the set of a question is measured (arXiv 2403.09024; docs/co_supervision.md has the table)."""
    if (found := next((name for name in BY_REFERENCE if known[name] is not None), None)) is not None:
        return found
    return BY_TASK.get(told.task, "answer_presence" if told.long_answer is None else "rouge_l")


def _hit(found: Sequence[str], gold: set[str]) -> float | None:
    return float(bool(gold & {*found})) if gold else None


def set_retrieval(retrieved: Sequence[str], gold: Sequence[str]) -> dict[str, float | None]:
    """Precision, recall, F1, exact match and any hit of what was looked up, each passage once; None without gold.

    Args:
        retrieved: ids of passages; with none all is 0.
        gold: ids of right ones.

    Returns: ``set_precision``, ``set_recall``, ``set_f1``, ``set_em`` and ``set_hit``.
    """
    right, found = {*gold}, {*retrieved}
    if not right:
        return dict.fromkeys(("set_precision", "set_recall", "set_f1", "set_em", "set_hit"))
    common = len(right & found)
    return {
        "set_precision": common / max(len(found), 1),
        "set_recall": common / len(right),
        "set_f1": 2 * common / (len(found) + len(right)),
        "set_em": float(found == right),
        "set_hit": float(common > 0),
    }


def answer_in_passage(texts: Sequence[str], answers: Sequence[str]) -> float:
    """1 if a passage that was looked up has an answer in it, as whole words (`text.qa.answers`), else 0."""
    return float(any(contains_answer(text, answers) for text in texts))


def passage_precision(texts: Sequence[str], answers: Sequence[str]) -> float:
    """Share of the passages looked up that have an answer in them, as whole words; 0 without look-ups.

    Args:
        texts: of the different passages.
        answers: any counts.
    """
    return sum(contains_answer(text, answers) for text in texts) / max(len(texts), 1)


def citation_scores(
    pieces: Sequence[Piece],
    passages: Mapping[str, str],
    entails: Callable[[Sequence[tuple[str, str]]], Sequence[bool]],
) -> tuple[float | None, float | None]:
    """Recall and precision of citations; None for an answer that says nothing.

    Recall, as in the official code of 2403.09024: sentences without a citation belong to the next one; a unit counts
    the share of its sentences that follow from its passage, and the answer is the mean over units. ALCE (2305.14627,
    section 3) takes the mean over sentences, and lets none belong to a later citation. What nothing cites at the end
    is one unit more, which counts 0: an answer must not gain by citing less.
    Precision: the share of citations whose own words follow from their passage; None for an answer that cites nothing.

    Args:
        pieces: of the answer.
        passages: texts by id.
        entails: see `scores`.
    """
    found = units(pieces)
    of_units = [(passages[unit.passage], sentence) for unit in found for sentence in unit.sentences]
    of_cited = [(passages[unit.passage], unit.cited) for unit in found]
    verdicts = [*map(float, entails([*of_units, *of_cited]))] if found else []
    own = iter(verdicts)
    shares = []
    for unit in found:
        each = [next(own) for _ in unit.sentences]
        shares.append(sum(each) / len(each))
    precise = [*own]
    if _ends_uncited(pieces):
        shares.append(0.0)
    recall = sum(shares) / len(shares) if shares else None
    return recall, sum(precise) / len(precise) if precise else None


def _ends_uncited(pieces: Sequence[Piece]) -> bool:
    """Whether words come behind the last citation, or there is none."""
    said = [piece for piece in pieces if any(map(str.isalnum, piece.text))]
    return bool(said) and said[-1].passage is None
