"""How well questions are answered by summarised retrieval, and which of its stages went wrong (arXiv 2404.13081).

All numbers are of records alone, as fractions between 0 and 1; NaN where nothing was to be measured. This file does not
know who wrote or decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from metrics.qa.answers import answer_accuracy, exact_match, token_f1
from metrics.qa.paired import RiskCoverage, risk_coverage
from metrics.qa.passages import answer_ranks, gold_ranks, passage_scores
from text.qa.answers import contains_answer
from text.qa.sure_records import Comparison, SuReRecord

Answered = Sequence[SuReRecord]


def right(record: SuReRecord) -> list[bool]:
    """Whether each candidate is a right answer."""
    return [is_right(candidate.text, record) for candidate in record.candidates]


def is_right(text: str, record: SuReRecord) -> bool:
    """Whether a text is a right answer to a question; nothing is where none is known."""
    return exact_match(text, record.answers or [""]) == 1


def first(record: SuReRecord) -> str:
    """The candidate that was proposed first, "" for none."""
    return record.candidates[0].text if record.candidates else ""


def arms(record: SuReRecord) -> dict[str, str]:
    """All answers to a question, by the suffix of their scores: "" is SuRe's own."""
    told = {"": record.prediction, "_first": first(record), "_base": record.base, "_none": record.none}
    told |= {f"_{name}": record.alone.get(name, record.prediction) for name in ("valid_only", "rank_only")}
    if record.cot is not None:
        told["_cot"] = record.cot
    if record.from_generic is not None:
        told["_from_generic"] = record.from_generic
    return told | {f"_reranked/{name}": text for name, text in record.reranked.items()}


def all_arms(records: Answered) -> list[str]:
    """The suffixes of all answers: a question without passages lacks some, and nothing is right there."""
    return [*dict.fromkeys(suffix for record in records for suffix in arms(record))]


def sure_scores(records: Answered) -> dict[str, float]:
    """All scores of questions whose right answers are known, by their names in metrics.json.

    Args:
        records: at least one, all asked alike.
    """
    scores: dict[str, float] = {}
    for suffix in all_arms(records):
        answers = [(arms(record).get(suffix, ""), record.answers or [""]) for record in records]
        scores[f"em{suffix}"] = fmean(exact_match(*one) for one in answers)
        scores[f"f1{suffix}"] = fmean(token_f1(*one) for one in answers)
        scores[f"accuracy{suffix}"] = fmean(answer_accuracy(*one) for one in answers)
    scores["oracle_em"] = fmean(any(right(record)) for record in records)
    scores["oracle_f1"] = fmean(
        max((token_f1(candidate.text, record.answers or [""]) for candidate in record.candidates), default=0.0)
        for record in records
    )
    scores["risk_coverage_area"] = margin_curve(records).area
    return scores | verdict_scores(records) | _changes(records) | _stages(records) | _retrieval(records)


def margin_curve(records: Answered) -> RiskCoverage:
    """Risk and coverage of the questions in which there was a choice, by the margin of the choice."""
    chosen = [record for record in records if record.margin is not None]
    return risk_coverage([one.margin or 0.0 for one in chosen], [is_right(one.prediction, one) for one in chosen])


def verdict_scores(records: Answered) -> dict[str, float]:
    """How often verdicts are right: those that cannot be read are wrong, rankings that contradict themselves half.

    ``position_bias`` is the share of pairs of which both orders name the same slot, among those that can be read.
    """
    valid = [
        candidate.valid is truth
        for record in records
        for candidate, truth in zip(record.candidates, right(record), strict=True)
        if record.comparisons
    ]
    pairs = [(record, both) for record in records for both in _pairs(record)]
    ranked, same = [], []
    for record, (forward, backward) in pairs:
        slots = forward.slot, backward.slot
        if None not in slots:
            same.append(slots[0] == slots[1])
        truth = right(record)
        if truth[forward.first] != truth[forward.second]:
            wins = (1, 2) if truth[forward.first] else (2, 1)
            told = [slot == win for slot, win in zip(slots, wins, strict=True)]
            against = [slot is not None and slot != win for slot, win in zip(slots, wins, strict=True)]
            ranked.append(1.0 if any(told) and not any(against) else 0.5 if any(told) else 0.0)
    return {
        "validity_accuracy": _mean(valid),
        "ranking_accuracy": _mean(ranked),
        "ranking_questions": float(len(ranked)),
        "position_bias": _mean(same),
    }


def _pairs(record: SuReRecord) -> list[tuple[Comparison, Comparison]]:
    """Both orders of each pair of candidates."""
    by = {(one.first, one.second): one for one in record.comparisons}
    return [(one, by[j, i]) for (i, j), one in by.items() if i < j]


def _changes(records: Answered) -> dict[str, float]:
    """How many questions the choice of another than the first candidate made right or wrong."""
    changed = [
        (exact_match(first(record), record.answers or [""]), exact_match(record.prediction, record.answers or [""]))
        for record in records
    ]
    return {
        "changed/right_to_wrong": float(changed.count((1.0, 0.0))),
        "changed/wrong_to_right": float(changed.count((0.0, 1.0))),
        "changed/all": float(sum(bool(record.chosen) for record in records)),
    }


def _stages(records: Answered) -> dict[str, float]:
    """What could not be read, and how often each thing decided."""
    judged = [candidate for record in records if record.comparisons for candidate in record.candidates]
    compared = [one for record in records for one in record.comparisons]
    scores = {
        "unparsed/candidates": _mean(record.form in ("unmarked", "empty") for record in records),
        "unparsed/validity": _mean(candidate.valid is None for candidate in judged),
        "unparsed/ranking": _mean(one.slot is None for one in compared),
        "questions": float(len(records)),
        "questions/one_candidate": float(sum(record.status == "one_candidate" for record in records)),
        "questions/no_candidate": float(sum(record.status == "no_candidate" for record in records)),
        "questions/no_passage": float(sum(not record.shown for record in records)),
        "passages/dropped": float(sum(record.dropped for record in records)),
    }
    if records[0].cot is not None:
        scores["unparsed/cot"] = _mean(not record.cot for record in records)
    if any(record.orders_read for record in records):
        scores["unparsed/order"] = _mean(not read for record in records for read in record.orders_read)
    if any(candidate.held is not None for candidate in judged):
        scores["summaries/held"] = _mean(bool(candidate.held) for candidate in judged)
    written = [_is_quoted(one.summary, record) for record in records for one in record.candidates if one.summary]
    scores["summaries/quoted"] = _mean(written)
    if any("sure" in record.reranked for record in records):  # by no text: the first passage stays
        scores["reranked/no_summary"] = float(sum(not record.rationale for record in records))
        scores["reranked/no_generic"] = float(sum(not record.generic for record in records))
    for name in ("valid", "rank", "both", "tie"):
        scores[f"decided_by/{name}"] = float(sum(record.by == name for record in records))
    return scores


def _is_quoted(summary: str, record: SuReRecord) -> bool:
    """Whether a summary stands in a passage word for word: what is written otherwise may be made up."""
    return any(contains_answer(context.text, [summary]) for context in record.shown)


def _retrieval(records: Answered) -> dict[str, float]:
    """Whether the passages that were found hold an answer, and which gold passages are among them."""
    texts = [[f"{context.title} {context.text}" for context in record.contexts] for record in records]
    cutoffs = [k for k in (1, 5, 10, 20, 100) if k <= max(map(len, texts), default=0)]
    held = passage_scores(answer_ranks(texts, [record.answers or [] for record in records]), cutoffs)
    scores = {f"retrieval/answer_{name}": value for name, value in held.items()}
    known = [record for record in records if record.gold_ids and _named(record)]
    if known:
        found = [[context.id or "" for context in record.contexts] for record in known]
        gold = passage_scores(gold_ranks(found, [record.gold_ids or [] for record in known]), cutoffs)
        scores |= {f"retrieval/gold_{name}": value for name, value in gold.items()}
    return scores


def _named(record: SuReRecord) -> bool:
    """Whether passages have ids: of others nobody knows which are gold."""
    return not record.contexts or any(context.id for context in record.contexts)


def _mean(values: Iterable[float]) -> float:
    told = [float(value) for value in values]
    return fmean(told) if told else float("nan")
