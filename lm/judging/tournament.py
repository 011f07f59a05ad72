"""Which of several answers is best, by comparisons of two: a knock-out tournament, or everybody against everybody.

Pure functions of a seed and of who wins a match; the caller's lists stay as they are. All matches of a round, of all
prompts, are put to the judge at once. This file knows numbers of answers. It does not know what an answer is, nor who
judges (lm/judging/comparing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import Literal, NamedTuple

from text.errors import UserError

Strategy = Literal["tournament", "copeland", "first"]


class Match(NamedTuple):
    """Two answers of a prompt, by number; the prompt by its own."""

    prompt: int
    one: int
    other: int


class Result(NamedTuple):
    """A match that was played.

    Args:
        round: from 1.
        one: number of an answer.
        other: of the other.
        winner: of the better one; None if it was left undecided.
    """

    round: int
    one: int
    other: int
    winner: int | None


class Bracket(NamedTuple):
    """How an answer came to be chosen.

    Args:
        winner: its number among the answers of its prompt.
        results: all matches.
        alike: of answers that are the same only the first takes part; these are the others.
    """

    winner: int
    results: tuple[Result, ...] = ()
    alike: tuple[int, ...] = ()

    @property
    def rounds(self) -> int:
        """How many there were."""
        return max((result.round for result in self.results), default=0)

    @property
    def last(self) -> Result | None:
        """The match that the winner met somebody in last; None where it met nobody."""
        met = [result for result in self.results if self.winner in (result.one, result.other)]
        return met[-1] if met else None

    @property
    def runner_up(self) -> int | None:
        """Whom the winner beat in its last match; None where that was left undecided or lost, or it met nobody.

        The winner of a knock-out may owe its last match to a toss, and the one with most wins may have lost one.
        """
        last = self.last
        return last.one + last.other - self.winner if last is not None and last.winner == self.winner else None


Play = Callable[[Sequence[Match]], Sequence[int | None]]
"""From the matches of a round to their winners: 0 for the one, 1 for the other, None for undecided."""


def choose(strategy: Strategy, answers: Sequence[Sequence[str]], play: Play, seeds: Sequence[int]) -> list[Bracket]:
    """The best answer to each prompt.

    Args:
        strategy: ``tournament``: in each round neighbours of a drawn order meet, of an odd number the first goes on
            without a match, and winners go on, so that there are N - 1 matches in ceil(log2 N) rounds (arXiv
            2402.11253); ``copeland``: all N (N - 1) / 2 pairs meet, and most wins win, an undecided match counting half
            for both; ``first``: no match.
        answers: to each prompt, at least one.
        play: who wins.
        seeds: one for each prompt: of the order, and of what breaks a tie.

    Raises:
        UserError: for a prompt without answers.
    """
    if empty := [number for number, own in enumerate(answers) if not own]:
        raise UserError(f"prompt {empty[0]} has no answers to choose from")
    fields = [[number for number, text in enumerate(own) if text not in own[:number]] for own in answers]
    alike = [tuple(set(range(len(own))).difference(field)) for own, field in zip(answers, fields, strict=True)]
    if strategy == "first":
        return [Bracket(0, (), same) for same in alike]
    method = _knock_out if strategy == "tournament" else _all_pairs
    return [Bracket(*found, same) for found, same in zip(method(fields, play, seeds), alike, strict=True)]


def _knock_out(fields: list[list[int]], play: Play, seeds: Sequence[int]) -> list[tuple[int, tuple[Result, ...]]]:
    """Winner and results of each prompt."""
    results: list[list[Result]] = [[] for _ in fields]
    number = 0
    while any(len(field) > 1 for field in fields):
        number += 1
        orders = [
            Random(f"{seed} {number}").sample(field, len(field)) for field, seed in zip(fields, seeds, strict=True)
        ]
        matches = [
            Match(prompt, *order[at : at + 2])
            for prompt, order in enumerate(orders)
            for at in range(len(order) % 2, len(order), 2)
        ]
        fields = [order[: len(order) % 2] for order in orders]
        for match, won in zip(matches, play(matches), strict=True):
            winner = (match.one, match.other)[won if won is not None else _toss(seeds[match.prompt], match)]
            fields[match.prompt].append(winner)
            results[match.prompt].append(Result(number, match.one, match.other, None if won is None else winner))
    return [(field[0], tuple(found)) for field, found in zip(fields, results, strict=True)]


def _all_pairs(fields: list[list[int]], play: Play, seeds: Sequence[int]) -> list[tuple[int, tuple[Result, ...]]]:
    """Winner and results of each prompt; of equal wins one is drawn."""
    matches = [Match(prompt, *pair) for prompt, field in enumerate(fields) for pair in combinations(field, 2)]
    wins = [dict.fromkeys(field, 0.0) for field in fields]
    results: list[list[Result]] = [[] for _ in fields]
    for match, won in zip(matches, play(matches) if matches else (), strict=True):
        sides = (match.one, match.other)
        for place, side in enumerate(sides):
            wins[match.prompt][side] += 0.5 if won is None else float(won == place)
        results[match.prompt].append(Result(1, *sides, None if won is None else sides[won]))
    chosen = []
    for own, seed, found in zip(wins, seeds, results, strict=True):
        best = [number for number, count in own.items() if count == max(own.values())]
        chosen.append((Random(f"{seed} wins").choice(best), tuple(found)))
    return chosen


def _toss(seed: int, match: Match) -> int:
    return Random(f"{seed} {match.one} {match.other}").randrange(2)
