"""Summaries as rationales and as queries: a scripted judge, and an encoder whose vectors are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lm.judging import ProgrammaticJudge, Verdict
from modules.sure.comparing import nearest_by, preferred_rationales
from text.qa.qa_records import ContextRecord
from text.qa.sure_records import SuReRecord


def record(id: str, **more: Any) -> SuReRecord:
    of = {"question": f"{id}?", "answers": ["Oslo"], "none": "", "base": "", "form": "ok", "status": "chosen"}
    of |= {
        "by": "both",
        "prediction": "Oslo",
        "from_generic": "Oslo",
        "rationale": f"{id} sure",
        "generic": f"{id} plain",
    }
    contexts = [ContextRecord.model_validate({"text": "Oslo."})]
    return SuReRecord.model_validate({"id": id, **of, "contexts": contexts, "candidates": []} | more)


class Slots:
    """Prefers what it is told to by question; "first" and "second" are slots, whatever stands there."""

    def __init__(self, **said: str):
        self.said, self.asked = said, []

    def judge(self, requests):
        self.asked += [(request.id, request.responses, request.reference) for request in requests]
        return [Verdict(preference=self._of(request)) for request in requests]

    def _of(self, request):
        match self.said[request.id]:
            case "first":
                return "A"
            case "none":
                return None
            case wanted:
                return "A" if wanted in request.responses[0] else "B"


def test_only_verdicts_that_name_one_summary_in_both_orders_count():
    records = [
        *(record(id) for id in ("a", "b", "c", "d")),
        record("tie", by="tie"),
        record("alone", by=None, status="one_candidate"),
        record("wrong", prediction="Rome"),
        record("generic wrong", from_generic="Rome"),
    ]
    judge = Slots(a="sure", b="plain", c="first", d="none")
    found = preferred_rationales(records, judge)
    assert found.verdicts == {"a": "win", "b": "lose", "c": "tie", "d": "tie"}
    assert found.shares == {
        "preference/win": 0.25, "preference/lose": 0.25, "preference/tie": 0.5, "preference/questions": 4.0,
    }  # fmt: skip
    assert judge.asked[:2] == [("a", ("a sure", "a plain"), "Oslo"), ("a", ("a plain", "a sure"), "Oslo")]


def test_a_judge_of_the_house_and_nothing_to_compare():
    longer = ProgrammaticJudge(other=lambda request, response: float(len(response)))
    assert preferred_rationales([record("a")], longer).shares["preference/lose"] == 1.0  # "a plain" is longer
    assert preferred_rationales([record("a", by="tie")], longer).shares == {"preference/questions": 0.0}


def test_the_nearest_text_is_that_of_the_largest_product():
    vectors = {"q": [1.0, 0.0], "x": [0.5, 9.0], "y": [0.9, 0.0], "z": [0.9, 1.0]}
    encoder: Any = SimpleNamespace(encode=lambda queries: torch.tensor([vectors[query.query] for query in queries]))
    assert nearest_by(encoder)("q", ["x", "y", "z"]) == 1  # of equals the first


@pytest.mark.parametrize("texts", [["x"], ["y", "x"]])
def test_every_place_is_one_of_the_texts(texts):
    encoder: Any = SimpleNamespace(encode=lambda queries: torch.ones(len(queries), 2))
    assert nearest_by(encoder)("q", texts) == 0
