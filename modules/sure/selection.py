"""Which candidate is chosen, given verdicts on the summaries (arXiv 2404.13081, section 3.3): pure functions.

With two candidates the official rule is the arithmetic of the official code: the second one wins in 3 of the 9 cells of
ranking x validity, so the rule favours the first. This file does not know how verdicts are read or computed.

Legend: K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

Selection = Literal["official", "valid_only", "rank_only", "soft"]
Slot = Literal[1, 2] | None
"""Which of two passages was called the better one; None where that could not be read."""
Pair = tuple[int, int]

PARTIAL = 0.75  # of a pair that is clear in one order and unread in the other; 1.0 in the official code


class Choice(NamedTuple):
    """What was decided.

    Args:
        place: of the chosen candidate.
        by: ``valid`` or ``rank`` alone, ``both`` where they agree, ``tie`` where the order of candidates decided.
        scores: of the candidates [K].
        margin: by which the chosen one leads the next; 0 for a tie, infinite for one candidate.
    """

    place: int
    by: Literal["valid", "rank", "both", "tie"]
    scores: list[float]
    margin: float


def preference(forward: Slot, backward: Slot, partial: float = PARTIAL) -> float:
    """How far candidate i is preferred to j, between 0 and 1.

    1 or 0 where both orders name the same summary, 1/2 where they name the same slot or neither can be read.

    Args:
        forward: the slot that is named when the summary of i stands first.
        backward: the slot that is named when that of j does.
        partial: what one order counts where the other cannot be read.
    """
    first = None if forward is None else forward == 1
    second = None if backward is None else backward == 2
    if first is None and second is None:
        return 0.5
    if first is None or second is None:
        return partial if (second if first is None else first) else 1 - partial
    return (first + second) / 2


def ranks(k: int, preferences: Mapping[Pair, float]) -> list[float]:
    """The sum of each candidate's preferences over the others [K].

    Args:
        k: candidates.
        preferences: of i over j by (i, j), i < j, all of them.
    """
    totals = [0.0] * k
    for i, j in combinations(range(k), 2):
        totals[i] += preferences[i, j]
        totals[j] += 1 - preferences[i, j]
    return totals


def validities(verdicts: Sequence[bool | None]) -> list[float]:
    """1 for each candidate whose summary is called valid [K]; all 0 where one verdict could not be read.

    So validity says nothing then, and the ranking decides alone, as in the official code.
    """
    return [0.0] * len(verdicts) if None in verdicts else [float(bool(verdict)) for verdict in verdicts]


def choose(valid: Sequence[float], ranked: Sequence[float], selection: Selection = "official") -> Choice:
    """The candidate of the highest score; of equals the one that was proposed first.

    Args:
        valid: of each candidate [K]: `validities`, or under ``soft`` log-odds of True.
        ranked: of each candidate [K]: `ranks`, or under ``soft`` log-odds of being the better one, summed over the
            others.
        selection: ``official`` and ``soft`` add both; the others leave one aside.
    """
    valid = [0.0] * len(valid) if selection == "rank_only" else valid
    ranked = [0.0] * len(ranked) if selection == "valid_only" else ranked
    scores = [v + r for v, r in zip(valid, ranked, strict=True)]
    place = scores.index(max(scores))
    others = [score for number, score in enumerate(scores) if number != place]
    margin = scores[place] - max(others, default=float("-inf"))
    says_valid, says_rank = _favours(valid, place), _favours(ranked, place)
    by: Literal["valid", "rank", "both", "tie"] = "tie"
    if margin > 0:
        by = "both" if says_valid and says_rank else "valid" if says_valid else "rank"
    return Choice(place, by, scores, margin)


def _favours(scores: Sequence[float], place: int) -> bool:
    """Whether scores tell a difference, and this candidate is among the best."""
    return scores[place] == max(scores) > min(scores)
