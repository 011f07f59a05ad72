"""Scores of three questions by hand, and what the report says of them."""

import json
import math

import pytest

from metrics.qa.decisions import right, sure_scores
from metrics.qa.report import report, row, tell
from text.qa.qa_records import ContextRecord, TaskRecord
from text.qa.sure_records import Comparison, JudgedCandidate, SuReRecord

CONTEXTS = [
    ContextRecord.model_validate({"id": "p1", "title": "Oslo", "text": "Oslo is the capital."}),
    ContextRecord.model_validate({"id": "p2", "title": "", "text": "Bergen is wet."}),
]


def question(id, candidates, slots, chosen, by, **more) -> SuReRecord:
    judged = [JudgedCandidate(text=text, summary=f"{text} is the capital.", valid=valid) for text, valid in candidates]
    pairs = [Comparison(first=i, second=1 - i, slot=slot) for i, slot in enumerate(slots)]
    prediction = judged[chosen or 0].text if judged else ""
    status = "chosen" if pairs else "one_candidate" if judged else "no_candidate"
    of = {"question": f"{id}?", "answers": ["Oslo"], "contexts": CONTEXTS, "none": "Rome", "base": "Bergen"}
    of |= {"form": "ok", "chosen": chosen, "by": by, "margin": None if chosen is None else float(by != "tie")}
    return SuReRecord.model_validate(
        {"id": id, **of, "candidates": judged, "comparisons": pairs, "status": status, "prediction": prediction} | more
    )


OWN = {"alone": {"valid_only": "Bergen", "rank_only": "Oslo"}, "orders_read": [True, False]}
RECORDS = [
    question("won", [("Bergen", False), ("Oslo", True)], (2, 1), 1, "both", gold_ids=["p1"], type="a", **OWN),
    question("lost", [("Oslo", False), ("Bergen", None)], (1, 1), 1, "rank", gold_ids=["p2"], type="b"),
    question("alone", [("Oslo", None)], (), None, None, form="single", type="b"),
    question("none", [], (), None, None, form="empty", type="b", contexts=[]),
]


def test_scores_by_hand():
    scores = sure_scores(RECORDS)
    by_hand = {
        "em": 2 / 4,
        "em_first": 2 / 4,
        "em_valid_only": 1 / 4,  # where nothing was to be chosen, as the others
        "em_rank_only": 2 / 4,
        "em_base": 0,
        "em_none": 0,
        "oracle_em": 3 / 4,
        "validity_accuracy": 2 / 4,  # one False of Oslo, one unread
        "ranking_accuracy": (1 + 0.5) / 2,
        "position_bias": 1 / 2,
        "unparsed/candidates": 1 / 4,
        "unparsed/validity": 1 / 4,
        "unparsed/ranking": 0,
        "unparsed/order": 1 / 2,
        "changed/wrong_to_right": 1,
        "changed/right_to_wrong": 1,
        "questions/one_candidate": 1,
        "questions/no_candidate": 1,
        "questions/no_passage": 1,
        "summaries/quoted": 3 / 5,
        "decided_by/rank": 1,
        "retrieval/answer_hit@1": 3 / 4,
        "retrieval/gold_mrr": (1 + 1 / 2) / 2,
        "risk_coverage_area": 1 / 2,  # both margins are the same, one of two is wrong
    }
    assert {name: scores[name] for name in by_hand} == pytest.approx(by_hand)


def test_nothing_measured_is_not_zero():
    scores = sure_scores(RECORDS[3:])
    assert all(math.isnan(scores[name]) for name in ("validity_accuracy", "ranking_accuracy", "position_bias"))


def test_the_report_tells_changes_and_traces(tmp_path):
    text = report(RECORDS, sure_scores(RECORDS))
    assert "| all | the first candidate | 1 | 1 | 1.000 |" in text
    assert "| type b | passages in the prompt | 1 | 0 | 1.000 |" in text
    assert text.count("### ") == 3
    assert text.index("### won?") < text.index("### lost?")
    assert "- answer: **Oslo**, by both verdicts: right" in text
    tell(RECORDS, sure_scores(RECORDS), tmp_path)
    names = {file.name for file in (tmp_path / "sure").iterdir()}
    assert names == {"report.md", "per_question.jsonl", "risk_coverage.png"}
    assert row(RECORDS[0])["em"] == 1.0
    preference = {"preference/win": 1.0, "preference/lose": 0.0, "preference/tie": 0.0, "preference/questions": 1.0}
    tell(RECORDS, sure_scores(RECORDS) | preference, tmp_path, {"won": "win"})
    rows = [json.loads(line) for line in (tmp_path / "sure" / "per_question.jsonl").read_text().splitlines()]
    assert [one.get("rationale") for one in rows] == ["win", None, None, None]
    assert "| SuRe's rationale judged better than a generic one | 100.0 |" in (tmp_path / "sure/report.md").read_text()


def test_tasks_can_be_read_again_where_a_summary_is_empty():
    won = RECORDS[0]
    silent = won.candidates[0].model_copy(update={"summary": ""})
    mute = won.model_copy(update={"candidates": [silent, won.candidates[1]]})
    tasks = mute.tasks(right(mute))
    assert [task.task for task in tasks] == ["answer", "candidates", "summary", "validity"]
    assert [TaskRecord.model_validate_json(task.model_dump_json()).task for task in tasks] == [t.task for t in tasks]
    assert [task.task for task in won.tasks(right(won))].count("ranking") == 2


def test_an_answer_that_the_first_question_lacks_is_scored_all_the_same():
    told = [one.model_copy(update={"reranked": {} if one.id == "won" else {"sure": "Oslo"}}) for one in RECORDS]
    assert sure_scores(told)["em_reranked/sure"] == 3 / 4
    assert sure_scores(told)["reranked/no_summary"] == 4  # by none of them a passage could be chosen
    assert "reranked: sure" in report(told, sure_scores(told))


def test_passages_are_searched_for_and_then_shown():
    """One that was found and had no room is found all the same; nothing is quoted from it."""
    crowded = RECORDS[0].model_copy(update={"contexts": CONTEXTS[::-1], "dropped": 1})
    assert sure_scores([crowded])["retrieval/answer_mrr"] == 1 / 2
    assert sure_scores([crowded])["questions/no_passage"] == 0
    assert sure_scores([crowded.model_copy(update={"dropped": 2})])["questions/no_passage"] == 1


def test_passages_without_ids_are_not_taken_for_others_than_the_gold_ones():
    nameless = [context.model_copy(update={"id": None}) for context in CONTEXTS]
    told = [one.model_copy(update={"contexts": nameless if one.id == "lost" else CONTEXTS}) for one in RECORDS]
    assert sure_scores(told)["retrieval/gold_mrr"] == 1  # of the question that was won; of the other nobody knows
    assert not any("gold" in name for name in sure_scores([told[1]]))
