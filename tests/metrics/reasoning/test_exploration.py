"""Pits against true first errors, by hand on chains of sums."""

import pytest

from metrics.reasoning.exploration import KnowsErrors, pit_report
from text.reasoning.reasoning_records import ExplorationRecord
from worlds import ChainArithmetic, Manners

QUESTION = "47+8-9*3+6=?"
# 47+8=55, 55-9=46, 46*3=38, 38+6=44: the second line is wrong, the last sum too.
STEPS = ["47+8=55\n", "55-9=45\n", "45*3=35\n", "35+6=42\n", "A42"]


def explored(pit: int | None, steps: list[str] = STEPS) -> ExplorationRecord:
    return ExplorationRecord(pair_id="q", steps=steps, pit=pit, status="pit" if pit else "no_pit")


def test_shares():
    found = [explored(2), explored(1), explored(4), explored(2), explored(None)]
    assert pit_report([QUESTION] * 5, found, ChainArithmetic()) == {
        "pit_accuracy": 0.5,
        "pit_early": 0.25,
        "pit_late": 0.25,
        "sound_after_pit": pytest.approx(3 / 7),  # of pit 2: right, wrong; of 1: wrong, right, wrong; of 4: nothing
    }


def test_a_pit_at_the_answer_has_nothing_after_it():
    steps = ["47+8=55\n", "55-9=46\n", "46*3=38\n", "38+6=44\n", "A45"]
    report = pit_report([QUESTION], [explored(5, steps)], ChainArithmetic())
    assert report == {"pit_accuracy": 1.0, "pit_early": 0.0, "pit_late": 0.0}


def test_where_nobody_can_tell():
    assert isinstance(ChainArithmetic(), KnowsErrors)
    assert not isinstance(Manners(), KnowsErrors)
    assert pit_report([QUESTION], [explored(None)], ChainArithmetic()) == {}
    assert pit_report(["3*4+5*6=?"], [explored(1, ["<<3*4=13>>\n", "A43"])], ChainArithmetic(routes=True)) == {}
