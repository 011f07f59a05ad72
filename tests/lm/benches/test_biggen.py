"""What an evaluator of BiGGen Bench is asked, and what becomes of its verdicts."""

from __future__ import annotations

import pytest

from lm.benches.biggen import CapabilityBench, Grading
from lm.judging.requests import Verdict
from lm.protocols import Benchmark
from metrics.benches.capability_report import Evaluator
from text.errors import UserError
from text.judging.biggen import BiggenRecord
from text.judging.rubrics import Rubric
from text.records import Located

RUBRIC = {"criteria": "Is it kind?", **{f"score{n}_description": f"worth {n}" for n in range(1, 6)}}


def record(capability: str, task: str, index: int, system: str = "S") -> Located:
    given = {"id": f"{capability}_{task}_{index}", "capability": capability, "task": task, "instance_idx": index}
    more = {"system_prompt": system, "input": f"I{index}", "reference_answer": "R", "score_rubric": RUBRIC}
    return Located(BiggenRecord.model_validate(given | more), f"f:{index}", index)


RECORDS = [record("planning", "travel_plan", n) for n in range(3)] + [record("safety", "honesty", 0)]


class Script:
    def __init__(self, *scores):
        self.scores, self.asked = list(scores), []

    def judge(self, requests):
        self.asked += requests
        return [Verdict(score=self.scores.pop(0), feedback=f"because {request.id}") for request in requests]


def test_the_question_is_the_official_one():
    """The evaluator sees the input, not the system prompt (biggen_bench.md, section 3)."""
    bench, judge = CapabilityBench(RECORDS), Script(5, 3, None, 2)
    assert isinstance(bench, Benchmark)
    found = bench.score(list("wxyz"), judge)
    assert [(one.instruction, one.responses, one.reference) for one in judge.asked[:2]] == [
        ("I0", ("w",), "R"),
        ("I1", ("x",), "R"),
    ]
    assert judge.asked[0].rubric.criteria == "Is it kind?"
    assert (found["planning"], found["safety"], found["overall_macro"]) == (4.0, 2.0, 3.0)
    assert found["overall_micro"] == pytest.approx(10 / 3)
    assert (found["coverage"], found["parse_failure_rate"]) == (0.75, 0.25)
    CapabilityBench(RECORDS[:1], Grading(show_system_prompt=True)).score(["w"], judge := Script(1))
    assert judge.asked[0].instruction == "S\n\nI0"
    other = Rubric.model_validate(RUBRIC | {"criteria": "Is it short?"})
    CapabilityBench(RECORDS[:1], rubrics=[other]).score(["w"], judge := Script(1))
    assert judge.asked[0].rubric.criteria == "Is it short?"


def test_several_ratings_of_an_answer():
    judge = Script(4, 4, 2, None, 5)
    found = CapabilityBench(RECORDS[:1], Grading(runs=5, self_consistency="majority")).report(["w"], {"j": judge})
    assert found.scalars["planning"] == 4.0
    assert found.rows[0]["ratings"] == {"j": [4, 4, 2, None, 5]}
    assert found.rows[0]["feedback"] == "because planning_travel_plan_0"


def test_several_evaluators_are_a_panel():
    recorded = [Evaluator("old", [[3], [3], [1], []], ["", "", "", ""])]
    found = CapabilityBench(RECORDS, Grading(panel="mean")).report(list("wxyz"), {"new": Script(5, 3, 1, 2)}, recorded)
    assert found.scalars["overall_macro"] == pytest.approx(((4 + 3 + 1) / 3 + 2) / 2)
    assert found.judges["old"]["per_capability"] == {"planning": pytest.approx(7 / 3)}
    assert found.judges["new"]["macro"] == 2.5
    assert found.agreement["old", "new"]["n"] == 3
    assert found.scalars["agreement/old~new/pearson"] == pytest.approx(0.8660254)  # (3, 3, 1) and (5, 3, 1)
    assert found.rows[3]["scores"] == {"old": None, "new": 2.0}


def test_what_was_not_answered_is_not_judged():
    found = CapabilityBench(RECORDS).report(["w", None, None, " "], {"j": Script(5)})
    assert (found.scalars["absent"], found.scalars["planning"], found.scalars["safety"]) == (2, 5.0, 1.0)
    assert [row["judged"] for row in found.rows] == [True, False, False, True]


def test_somebody_must_judge():
    with pytest.raises(UserError, match="without a judge"):
        CapabilityBench(RECORDS).score(list("wxyz"), None)
    with pytest.raises(UserError, match="names of their own"):
        CapabilityBench(RECORDS).report(list("wxyz"), {}, [])
    with pytest.raises(UserError, match="names of their own"):
        CapabilityBench(RECORDS[:1]).report(["w"], {"j": Script(1)}, [Evaluator("j", [[1]], [""])])
