"""What answers that cite are worth: was the passage found, read and cited, and does it support what is said?

Scores are of one question, between 0 and 1, or None where they have no meaning; a data set's are means over the others.
Citation recall and precision follow ALCE (arXiv 2305.14627, section 3), for citations of one passage each. This file
knows strings and ids. It does not know who wrote, searched, or says what follows from what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics.qa.answers import answer_accuracy, exact_match, token_f1
from metrics.qa.long_answers import best_rouge_l, claim_recall, label_accuracy, string_match
from metrics.tables import section
from text.citing.citations import Piece, cited_text, units, without_citations
from text.excerpts import printable, shorten
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
    "answer_in_passage",
    "set_precision",
    "set_recall",
    "citation_recall",
    "citation_precision",
    "joint",
    "emitted",
)
"""All that is told of a question, in the order of tables."""


SHOWN = 300
"""Characters of a passage in a report."""


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


def scores(told: Told, entails: Callable[[Sequence[tuple[str, str]]], Sequence[bool]]) -> dict[str, float | None]:
    """All `SCORES` of one question.

    Args:
        told: about the answer.
        entails: says of pairs of premise and hypothesis whether the second follows from the first.
    """
    output = without_citations(cited_text(told.pieces))
    em, gold = exact_match(output, told.answers), set(told.gold)
    precision, recall = set_retrieval(told.retrieved, told.gold)
    cited_recall, cited_precision = citation_scores(told.pieces, told.passages, entails)
    str_em, str_hit = string_match(output, told.short_answers)
    right_passage = float(bool(gold & {*told.retrieved})) if gold else None
    return {
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
        "answer_in_passage": answer_in_passage([*told.passages.values()], told.answers),
        "set_precision": precision,
        "set_recall": recall,
        "citation_recall": cited_recall,
        "citation_precision": cited_precision,
        "joint": None if right_passage is None else float(em > 0 and right_passage > 0),
        "emitted": float(bool(told.retrieved)),
    }


def _hit(found: Sequence[str], gold: set[str]) -> float | None:
    return float(bool(gold & {*found})) if gold else None


def set_retrieval(retrieved: Sequence[str], gold: Sequence[str]) -> tuple[float | None, float | None]:
    """Precision and recall of what was looked up, each passage once; both 0 without look-ups, None without gold."""
    right, found = {*gold}, {*retrieved}
    if not right:
        return None, None
    return len(right & found) / max(len(found), 1), len(right & found) / len(right)


def answer_in_passage(texts: Sequence[str], answers: Sequence[str]) -> float:
    """1 if a passage that was looked up has an answer in it, as whole words (`text.qa.answers`), else 0."""
    return float(any(contains_answer(text, answers) for text in texts))


def citation_scores(
    pieces: Sequence[Piece],
    passages: Mapping[str, str],
    entails: Callable[[Sequence[tuple[str, str]]], Sequence[bool]],
) -> tuple[float | None, float | None]:
    """Recall and precision of citations; None for an answer that says nothing.

    Recall: sentences without a citation belong to the next one; a unit counts the share of its sentences that follow
    from its passage, and the answer is the mean over units. What nothing cites at the end is a unit that counts 0.
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


def report(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means by the name of the score, and by ``<score>/<domain>`` where questions have one; and counts.

    ``look_ups_unfound`` are look-ups of answers that found no passage, ``questions_unfound`` questions for which a
    look-up right behind them finds none.

    Args:
        lines: of questions, with their scores, ``domain``, ``retrieved`` and ``found``; a mean is over those that have
            the score.
    """
    means: dict[str, float] = {"questions": len(lines), "look_ups_unfound": look_ups_unfound(lines)}
    means["questions_unfound"] = sum(not line["found"] for line in lines)
    domains = sorted({line["domain"] for line in lines if line.get("domain")})
    for name in SCORES:
        for domain in (None, *domains):
            values = [line[name] for line in lines if domain in (None, line.get("domain")) and line[name] is not None]
            if values:
                means[name if domain is None else f"{name}/{domain}"] = sum(values) / len(values)
    return means


def look_ups_unfound(lines: Sequence[dict[str, Any]]) -> int:
    """Look-ups of answers that found no passage."""
    return sum(found["id"] is None for line in lines for found in line["retrieved"])


def report_page(
    means: dict[str, float], lines: Sequence[dict[str, Any]], space: Mapping[str, float] | None = None, shown: int = 20
) -> str:
    """A page: the scores, the shape of the space that is searched, then the first answers with their citations."""
    domains = sorted({name.partition("/")[2] for name in means} - {""})
    rows = [
        [name, *(f"{means[key]:.3f}" if (key := f"{name}/{d}" if d else name) in means else "" for d in ("", *domains))]
        for name in SCORES
        if name in means
    ]
    page = f"# Answers that cite\n\n{means['questions']:,.0f} questions.\n\n"
    if means["questions_unfound"] or means["look_ups_unfound"]:
        page += f"A search found no passage for {means['questions_unfound']:,.0f} questions, and for "
        page += f"{means['look_ups_unfound']:,.0f} look-ups of answers, which went on without one.\n\n"
    page += section("Scores", "", ["", "all", *domains], rows) + "\n"
    if space:
        told = "Squared distances of questions and right passages, and how narrow the cone of either is."
        cells = [[name, f"{value:.3f}"] for name, value in space.items()]
        page += "\n" + section("The space of sequences", told, ["", "value"], cells) + "\n"
    page += "\n## The first answers\n"
    for line in lines[:shown]:
        output = printable(line["output"]) or "(nothing)"
        page += f"\n**{printable(line['question'])}** ({line['finish_reason']})\n\n{output}\n\n"
        for number, found in enumerate(line["retrieved"], 1):
            told = "nothing was found" if found["id"] is None else f"`{found['id']}` "
            page += f"{number}. {told}{shorten(printable(found['text'] or ''), SHOWN)}\n"
    return page
