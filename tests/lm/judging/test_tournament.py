"""Choosing by matches: the best wins under an order, matches are counted, and nothing is changed in place."""

from __future__ import annotations

import math
from itertools import permutations

import pytest

from lm.judging.tournament import Result, choose
from text.errors import UserError


def by_value(calls):
    """A judge that knows which answer is the larger number."""

    def play(matches):
        calls.append(len(matches))
        return [int(VALUES[m.prompt][m.other] > VALUES[m.prompt][m.one]) for m in matches]

    return play


VALUES = [[(7 * n) % 17 for n in range(size)] for size in range(1, 18)]
ANSWERS = [[f"answer {value}" for value in own] for own in VALUES]


@pytest.mark.parametrize("strategy", ["tournament", "copeland"])
def test_the_best_of_n_wins(strategy):
    calls, before = [], [[*own] for own in ANSWERS]
    found = choose(strategy, ANSWERS, by_value(calls), range(17))
    assert [own[bracket.winner] for own, bracket in zip(VALUES, found, strict=True)] == list(map(max, VALUES))
    for size, bracket in enumerate(found, 1):
        if strategy == "tournament":
            assert (len(bracket.results), bracket.rounds) == (size - 1, math.ceil(math.log2(size)))
        else:
            assert (len(bracket.results), bracket.rounds) == (size * (size - 1) // 2, int(size > 1))
        if strategy == "tournament" and size > 1:
            assert bracket.results[-1][:3] in [
                (bracket.rounds, *pair) for pair in permutations((bracket.winner, bracket.runner_up))
            ]
    assert len(calls) == max(bracket.rounds for bracket in found)  # all prompts of a round at once
    assert sum(calls) == sum(len(bracket.results) for bracket in found)
    assert before == ANSWERS


def test_a_bracket_depends_on_its_seed_alone():
    def play(matches):
        return [0] * len(matches)

    [alone] = choose("tournament", [ANSWERS[8]], play, [5])
    beside = choose("tournament", [ANSWERS[3], ANSWERS[8]], play, [1, 5])[1]
    assert alone == beside
    assert len({choose("tournament", [ANSWERS[8]], play, [seed])[0].winner for seed in range(20)}) > 1


def test_equal_answers_take_part_once():
    calls = []

    def play(matches):
        calls.extend(matches)
        return [0 if match.one == 2 else 1 for match in matches]

    [found, alone] = choose("tournament", [["a", "a", "b"], ["c", "c"]], play, [1, 2])
    assert (found.winner, found.alike, alone.winner, alone.results) == (2, (1,), 0, ())
    assert (found.runner_up, alone.runner_up) == (0, None)
    assert len(calls) == 1


def test_undecided_matches_are_drawn_and_told():
    [knocked] = choose("tournament", [["a", "b"]], lambda matches: [None], [3])
    assert knocked.results[0].winner is None
    assert knocked.runner_up is None  # it was not beaten, and is nothing to learn from
    assert {choose("tournament", [["a", "b"]], lambda m: [None], [s])[0].winner for s in range(20)} == {0, 1}
    wins = {(0, 1): None, (0, 2): 0, (1, 2): 0}
    [even] = choose("copeland", [["a", "b", "c"]], lambda ms: [wins[m.one, m.other] for m in ms], [3])
    assert even.winner in (0, 1)
    assert even.results[0] == Result(1, 0, 1, None)
    wins = {(0, 1): 0, (0, 2): 0, (1, 2): 0, (0, 3): 1, (1, 3): 0, (2, 3): 0}
    [most] = choose("copeland", [list("abcd")], lambda ms: [wins[m.one, m.other] for m in ms], [3])
    assert (most.winner, most.last.winner, most.runner_up) in [(0, 3, None), (1, 1, 3)]  # 0 wins by 2 of 3, as 1 does


def test_first_and_nothing():
    assert choose("first", [["a", "b"]], lambda m: pytest.fail("no match"), [0])[0].winner == 0
    with pytest.raises(UserError, match="prompt 1 has no answers"):
        choose("tournament", [["a"], []], lambda m: [], [0, 0])
