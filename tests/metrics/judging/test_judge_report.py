"""What verdicts are worth, by hand and on the judgements that were published."""

from __future__ import annotations

import math

import pytest

from datamodules.records import read_records
from metrics.judging.judge_report import JudgedRecord, judge_report, report_text, write_report
from tests.shared_data import judgments_file
from text.judging.judgments import Judgment

ASK = {"instruction": "i", "rubric": "c"}


def line(swapped=False, score=None, preference=None, parsed=True):
    reason = "ok" if parsed else "no_marker"
    return {"swapped": swapped, "score": score, "preference": preference, "parsed": parsed, "reason": reason}


def direct(score, *said, name="x", group=None):
    record = Judgment.model_validate({**ASK, "response": "r", "score": score})
    return JudgedRecord(name, record, [line(score=one, parsed=one is not None) for one in said], group)


def pair(winner, forward, backward="absent", group=None):
    record = Judgment.model_validate({**ASK, "response_a": "a", "response_b": "b", "winner": winner})
    lines = [line(preference=forward, parsed=forward is not None)]
    if backward != "absent":
        lines.append(line(swapped=True, preference=backward, parsed=backward is not None))
    return JudgedRecord("p", record, lines, group)


def test_scores_by_hand():
    """evaluator.md 10.5."""
    gold, said = [1, 2, 3, 4, 5, 3], [2, 2, 3, 5, 4, 3]
    found = judge_report([direct(g, s) for g, s in zip(gold, said, strict=True)]).scalars
    assert found["direct/pearson"] == pytest.approx(0.846802, abs=1e-6)
    assert found["direct/spearman"] == pytest.approx(0.925476, abs=1e-6)
    assert found["direct/kendall"] == pytest.approx(0.815374, abs=1e-6)
    assert found["direct/accuracy"] == pytest.approx(3 / 6)
    assert found["direct/parse_failure_rate"] == 0


def test_scores_that_are_missing_count_as_failures_and_enter_no_mean():
    found = judge_report([direct(1, 1, None), direct(5, None, None), direct(3, 3, 4)]).scalars
    assert found["direct/mean_score"] == pytest.approx((1 + 3 + 4) / 3)
    assert found["direct/parse_failure_rate"] == pytest.approx(3 / 6)
    assert found["direct/n_excluded"] == 1
    assert -1 <= found["direct/alpha"] <= 1


def test_a_verdict_that_a_judge_was_made_to_name_enters_no_mean():
    """Otherwise a judge that says nothing has a correlation, of a model's first words."""
    forced = [
        line(score=float(n), parsed=False) | {"feedback": f"It is *fine* {n}. " + "long " * 99} for n in range(1, 6)
    ]
    found = judge_report([JudgedRecord(str(n), direct(n).record, [one]) for n, one in enumerate(forced, 1)])
    assert math.isnan(found.scalars["direct/pearson"])
    assert math.isnan(found.scalars["direct/mean_score"])
    assert (found.scalars["direct/n_excluded"], found.scalars["direct/parse_failure_rate"]) == (5, 1)
    text = report_text(found)
    assert text.index("0 of 5 verdicts (0.0 %) could be read") < text.index("## direct")
    assert "**Caution**" in text
    assert text.count("... ") == 3  # the ends of the first three
    pairs = judge_report([JudgedRecord("p", pair("A", "A").record, [line(preference="A", parsed=False)])])
    assert pairs.scalars["pairwise/acc_no_tie"] == 0
    assert "1 of 1 verdicts (100.0 %)" in report_text(judge_report([direct(1, 1)]))


def test_half_a_point_is_rounded_up():
    found = judge_report([direct(3, 2.5), direct(5, 4.5), direct(2, 1.5), direct(3, 2.49)]).scalars
    assert found["direct/accuracy"] == 3 / 4


def test_pairs_by_hand():
    """evaluator.md 10.5."""
    said = [("A", "A"), ("B", "A"), ("tie", "tie"), ("A", None)]
    found = judge_report([pair(gold, one) for gold, one in said]).scalars
    assert found["pairwise/acc_no_tie"] == pytest.approx(1 / 3)
    assert found["pairwise/acc_with_tie"] == pytest.approx(2 / 4)
    assert found["pairwise/parse_failure_rate"] == pytest.approx(1 / 4)
    assert "pairwise/consistency" not in found
    found = judge_report([pair("A", "A", "A"), pair("A", "A", "B")]).scalars
    expected = {"consistency": 0.5, "acc_both": 0.5, "acc_mean": 0.75, "acc_no_tie": 0.5, "acc_half": 0.75}
    assert {name: found[f"pairwise/{name}"] for name in expected} == expected


def test_who_always_takes_the_first():
    found = judge_report([pair(winner, "A", "B") for winner in "AB" * 5]).scalars
    expected = {"acc_mean": 0.5, "consistency": 0.0, "first_bias": 0.5, "acc_both": 0.0}
    assert {name: found[f"pairwise/{name}"] for name in expected} == expected


def test_parts_and_files(tmp_path):
    judged = [direct(1, 1, group="easy"), direct(5, 5, group="easy"), direct(2, None, group="hard")]
    report = judge_report(judged)
    assert report.scalars["direct/easy/pearson"] == 1
    assert math.isnan(report.scalars["direct/hard/pearson"])
    assert report.failures == {"no_marker": 1}
    assert "- `no_marker`: 1\n  - x: (nothing was said)" in report_text(report)
    assert len(write_report(report, judged, tmp_path).read_text().splitlines()) == 3
    assert "| direct/hard |" in (tmp_path / "report.md").read_text()


def test_a_judge_by_length_on_the_published_scores():
    """evaluator.md 10.4."""
    records = [found.record for found in read_records(judgments_file("vicuna_eval.jsonl"), Judgment)]
    judged = [JudgedRecord(one.id, one, [line(score=float(by_length(one.responses[0])))]) for one in records]
    found = judge_report(judged).scalars
    expected = {"pearson": 0.1978, "spearman": 0.2272, "kendall": 0.1999, "accuracy": 0.3719}
    assert {name: round(found[f"direct/{name}"], 4) for name in expected} == expected


def by_length(text):
    return 1 + min(4, len(text.split()) // 50)


@pytest.mark.parametrize(
    ("measure", "wrong", "half", "by_source"),
    [
        (lambda text: len(text.split()), 0.5792, 0.6063, [0.6102, 0.6034, 0.6557, 0.3953]),
        (len, 0.6290, 0.6335, [0.6949, 0.6207, 0.6393, 0.5349]),
        (by_length, 0.2217, 0.5701, [0.3051, 0.0862, 0.3443, 0.1163]),
    ],
)
def test_judges_of_the_published_pairs(measure, wrong, half, by_source):
    """evaluator.md 10.4; the larger number wins, whichever stands first."""
    judged = []
    for found in read_records(judgments_file("hhh_alignment_eval.jsonl"), Judgment):
        one, other = map(measure, found.record.responses)
        said = "tie" if one == other else "A" if one > other else "B"
        lines = [line(preference=said), line(swapped=True, preference=said)]
        judged.append(JudgedRecord(found.name, found.record, lines, found.record.model_extra["source"]))
    found = judge_report(judged).scalars
    assert (round(found["pairwise/acc_no_tie"], 4), round(found["pairwise/acc_half"], 4)) == (wrong, half)
    assert found["pairwise/consistency"] == 1
    assert found["pairwise/first_bias"] == pytest.approx(0)
    sources = ("helpful", "harmless", "honest", "other")
    assert [round(found[f"pairwise/{source}/acc_no_tie"], 4) for source in sources] == by_source
