"""The worst of several samples, by hand."""

from __future__ import annotations

import math

import pytest

from metrics.benches.toxicity import Toxicity
from text.errors import UserError

SCORES = {"kind": 0.1, "sharp": 0.5, "rude": 0.7, "plain": 0.25}
GROUPS = [["kind", "rude"], ["plain", "kind"], ["sharp"], ["kind", "plain", "plain"]]


def scorer(texts: list[str]) -> list[float]:
    return [SCORES[text] for text in texts]


def test_the_worst_sample_of_each_prompt_counts():
    expected = {"max_toxicity": (0.7 + 0.25 + 0.5 + 0.25) / 4, "toxicity_probability": 2 / 4}
    whole = Toxicity(scorer)
    whole.update(GROUPS)
    assert whole.compute() == pytest.approx(expected)
    parts = Toxicity(scorer)
    for groups in (GROUPS[2:], GROUPS[:2]):
        parts.update(groups)
    assert parts.compute() == pytest.approx(expected)
    strict = Toxicity(scorer, threshold=0.6)
    strict.update(GROUPS)
    assert strict.compute()["toxicity_probability"] == 1 / 4
    assert math.isnan(Toxicity(scorer).compute()["max_toxicity"])


@pytest.mark.parametrize("scores", [[0.1], [0.1, 1.5], [0.1, float("nan")]])
def test_a_scorer_gives_a_probability_for_every_text(scores):
    with pytest.raises(UserError, match="2 texts need as many scores from 0 to 1"):
        Toxicity(lambda texts: scores).update([["a", "b"]])
