"""Evaluators against the human, worked by hand and on the shared half of the bench."""

from __future__ import annotations

import math

import pytest

from metrics.judging.meta_evaluation import Rating, agreement_figure, meta_evaluation, report_text
from tests.metrics.benches.test_capability import human, made_up
from tests.shared_data import biggen_instances


def rating(human_score, score, model="m", capability="a", **more) -> Rating:
    return Rating(model, capability, "t", human_score, {"j": score} | more)


def test_agreement_by_hand():
    rows = [rating(1.0, 2.0), rating(2.0, 4.0), rating(3.0, 6.0), rating(None, 1.0), rating(5.0, None)]
    rows += [rating(score, 5 - score, capability="b") for score in (1.0, 2.0, 4.0)]
    found = meta_evaluation(rows, ["j"])
    assert found.agreement["j"]["a"]["pearson"] == pytest.approx(1)
    assert found.agreement["j"]["b"]["kendall"] == pytest.approx(-1)
    assert found.agreement["j"]["mean"]["pearson"] == pytest.approx(0)
    assert found.agreement["j"]["pooled"]["n"] == 6
    assert found.dropped["j"] == 2
    assert found.scalars["agreement/j/a/pearson"] == pytest.approx(1)
    assert found.models["human"]["m"] == pytest.approx(((1 + 2 + 3 + 5) / 4 + 7 / 3) / 2)


def test_models_are_put_in_order():
    rows = [rating(h, s, model) for model, h, s in (("x", 1.0, 2.0), ("y", 3.0, 2.5), ("z", 5.0, 4.0))]
    found = meta_evaluation(rows, ["j"])
    assert found.ranks["j"] == pytest.approx(1)
    assert found.scalars["models/j/z/a"] == 4.0
    swapped = meta_evaluation([rating(6 - one.human, one.judges["j"], one.model) for one in rows], ["j"])
    assert swapped.ranks["j"] == pytest.approx(-1)
    assert math.isnan(meta_evaluation(rows[:1], ["j"]).ranks["j"])


def test_what_does_not_count_for_an_evaluator_is_not_dropped_either():
    rows = [rating(1.0, 1.0), rating(2.0, 2.0), Rating("m", "a", "t", 3.0, {"k": 1.0})]
    found = meta_evaluation(rows, ["j", "k"])
    assert (found.agreement["j"]["pooled"]["n"], found.dropped["j"]) == (2, 0)
    assert math.isnan(found.agreement["k"]["pooled"]["pearson"])
    text = report_text(found, ["note"])
    assert "| pooled | 1.000 | n/a |" in text
    assert "- note" in text
    agreement_figure(found)


def test_nothing_to_compare():
    found = meta_evaluation([rating(None, 1.0)], ["j"])
    assert math.isnan(found.agreement["j"]["mean"]["pearson"])
    assert "n/a" in report_text(found)


def test_the_shared_half():
    rows = [
        Rating("m", one["capability"], one["task"], float(human(one["id"])), {"j": made_up("judgeA", 0, one["id"])})
        for one in biggen_instances()
        if one["capability"] != "multilingual"
    ]
    found = meta_evaluation(rows, ["j"])
    pooled = found.agreement["j"]["pooled"]
    assert pooled["n"] == 345
    assert [pooled[name] for name in ("pearson", "spearman", "kendall")] == pytest.approx(
        [0.8625, 0.8631, 0.7626], abs=5e-5
    )
    assert found.agreement["j"]["mean"]["pearson"] == pytest.approx(0.8628, abs=5e-5)
    wanted = {
        "grounding": 0.8442,
        "instruction_following": 0.8977,
        "planning": 0.8880,
        "reasoning": 0.8452,
        "refinement": 0.8261,
        "safety": 0.8831,
        "theory_of_mind": 0.8731,
        "tool_usage": 0.8449,
    }
    assert {name: found.agreement["j"][name]["pearson"] for name in wanted} == pytest.approx(wanted, abs=5e-5)
    assert found.dropped["j"] == 4
