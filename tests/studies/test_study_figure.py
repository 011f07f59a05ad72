"""The picture of a study: what every arm measures is drawn once, and all of it fits a page."""

from __future__ import annotations

import struct

import pytest
from matplotlib.figure import Figure

from studies import figure


def estimate(mean):
    return {"mean": mean, "low": mean and mean - 0.1, "high": mean and mean + 0.1, "per_seed": {"1": mean, "2": mean}}


def claim(number, contrast, arms, metric="score", **more):
    found = {"claim": f"Claim {number} says something of some length " * 3, "kind": "exploratory", "metric": [metric]}
    found |= {"contrast": contrast, "verdict": "SHOWN", "words": "SHOWN", "estimate": estimate(0.2)}
    return found | {"direction": "greater", "than": 0.0, "point": None, "arms": arms} | more


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws claims; gives axes, and the sizes of the PNG in pixels."""

    def draw(claims):
        made = []
        monkeypatch.setattr(figure, "Figure", lambda *args, **how: made.append(Figure(*args, **how)) or made[-1])
        figure.draw({"claims": claims}, tmp_path / "study.png")
        return made[0], struct.unpack(">II", (tmp_path / "study.png").read_bytes()[16:24])

    return draw


def test_many_claims_and_arms_fit_a_page(drawn):
    """Nine claims on seven arms, as of the evaluator: it was 5,328 pixels high, with all arms beside every claim."""
    arms = {f"arm_{n}": estimate(n / 10) for n in range(1, 8)}
    made, (width, height) = drawn([claim(n, "arm_1 - arm_2", arms, f"score_{n // 5}") for n in range(9)])
    assert width == 1500
    assert height < 1.5 * width
    assert len(made.axes) == 2 + 9  # two metrics


def test_arms_without_the_number_are_left_out_and_titles_stay_in_their_column(drawn):
    arms = {"one": estimate(0.1), "other": estimate(0.3), "lacking": estimate(None)}
    lone = {"other": estimate(0.3), "lacking": estimate(None)}
    lacking = claim(1, "one - other", arms, estimate=estimate(None))
    claims = [claim(0, "one - other", arms), lacking, claim(2, "other", lone, "rate")]
    made, (_, height) = drawn(claims)
    assert len(made.axes) == 1 + 3  # the third claim itself has the only arm
    assert [label.get_text() for label in made.axes[0].get_yticklabels()] == ["one", "other"]
    assert [text.get_text() for axes in made.axes for text in axes.texts] == ["not available"]
    *texts, _caption = made.texts
    assert max(text.get_window_extent().x1 for text in texts if text.get_position()[0] < 0.5) < 0.5 * 1500
    assert min(text.get_window_extent().y0 for text in made.texts) > 0
    assert max(text.get_window_extent().y1 for text in made.texts) <= height
