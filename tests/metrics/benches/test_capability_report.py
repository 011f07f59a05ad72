"""The report tells scores by part with what stands behind them, for one evaluator and for several."""

from __future__ import annotations

import json
import math

import pytest

from metrics.benches.capability_report import Evaluator, Summing, capability_report, score_figure
from metrics.benches.capability_tables import report_text, write_report

INSTANCES = [
    {"id": f"{capability}_{task}_{n}", "capability": capability, "task": task, "response": "x" * (3 * n + len(task))}
    for capability, task in (("planning", "travel_plan"), ("safety", "honesty"))
    for n in range(3)
]
ONE = Evaluator("one", [[5], [3], [None], [2], [2], []], ["good | <b>", "", "", "bad", "", ""])
TWO = Evaluator("two", [[5, 4], [4, 4], [1, 2], [2, 1], [3, 3], [1, None]], [""] * 6)


def test_one_evaluator():
    found = capability_report(INSTANCES, [ONE])
    assert found.scalars["overall_macro"] == 3.0
    assert found.scalars["safety/honesty"] == 2.0
    assert (found.scalars["coverage"], found.scalars["parse_failure_rate"]) == (4 / 6, 1 / 5)
    assert not [name for name in found.scalars if name.startswith(("agreement", "judges"))]
    text = report_text(found, ["a note"])
    assert "- 4 of 6 instances have a score; of the others 1 (20.00 %) were judged without" in text
    assert "- a note" in text
    assert "| mean over capabilities (macro) | 4 | 3.00 | [" in text
    assert "| planning/travel_plan | 2 | 4.00 | [1.00, 5.00] |" in text
    assert "| safety/honesty | 2 | 2.00 | none: all scores are equal |" in text
    one = report_text(capability_report(INSTANCES[:1], [Evaluator("one", [[5]], [""])]))
    assert "| planning/travel_plan | 1 | 5.00 | none: one score |" in one
    assert "The 4 lowest scores" in text
    assert "good &#124; &lt;b&gt;" in text


def test_several_evaluators():
    found = capability_report(INSTANCES, [ONE, TWO], Summing(panel="mean"))
    assert found.scalars["planning"] == pytest.approx(((5 + 4.5) / 2 + (3 + 4) / 2 + 1.5) / 3)
    assert found.agreement["one", "two"]["n"] == 4
    assert found.scalars["judges/two/coverage"] == 1.0
    assert -1 <= found.scalars["judges/two/self_alpha"] <= 1
    assert "judges/one/self_alpha" not in found.scalars
    text = report_text(found)
    assert "by a panel of one, two" in text
    assert "| one and two | 4 |" in text
    lowest = capability_report(INSTANCES, [ONE, TWO], Summing(impute="1"))
    assert lowest.judges["one"]["per_capability"]["planning"] == 3.0
    assert len(score_figure(found).axes[0].patches) == 2


def test_against_another_model():
    others = [{"id": one["id"], "score": 4} for one in INSTANCES[:4]]
    found = capability_report(INSTANCES, [ONE], others=others)
    assert [found.scalars[f"versus/{name}"] for name in ("wins", "ties", "losses", "macro")] == [1, 0, 2, -1.0]
    assert "1 wins, 0 ties, 2 losses" in report_text(found)


def test_nothing_was_judged():
    found = capability_report(INSTANCES, [Evaluator("one", [[]] * 6, [""] * 6)])
    assert math.isnan(found.scalars["overall_macro"])
    assert "0 of 6 instances have a score" in report_text(found)
    score_figure(found)


def test_scores_that_are_all_the_same_are_pointed_out():
    """As in the published sample evaluations, which a stand-in for a judge wrote."""
    found = capability_report(INSTANCES, [Evaluator("one", [[5]] * 6, [""] * 6)])
    assert "every score is 5" in report_text(found)
    assert math.isnan(found.scalars["length_bias"])


def test_files_are_whole(tmp_path):
    path = write_report(capability_report(INSTANCES, [ONE, TWO]), tmp_path / "bench")
    assert sorted(file.name for file in path.parent.iterdir()) == ["instances.jsonl", "report.md", "scores.png"]
    rows = [json.loads(line) for line in (path.parent / "instances.jsonl").read_text().splitlines()]
    assert rows[0]["scores"] == {"one": 5.0, "two": 4.5}
    assert rows[0]["ratings"] == {"one": [5], "two": [5, 4]}
    assert (rows[5]["judged"], rows[5]["score"]) == (True, 1.0)
