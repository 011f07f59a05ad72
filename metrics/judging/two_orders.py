"""One verdict on a pair, made of a judge's probabilities in both orders and under several principles; and reports.

The rule is that of arXiv 2402.11253's official code, with its quirks as options. This file knows numbers. It does not
know who judged, nor how it was asked (lm/judging/comparing.py).

Legend: order 0 shows the first answer as A, order 1 the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from metrics.judging.calibration import calibration_error
from metrics.judging.groups import by_group
from metrics.means import mean
from text.errors import UserError

Combine = Literal["probability", "renormalized", "logit"]
OnTie = Literal["second", "random", "skip"]
LOW_MASS = 0.5  # a judge that gives its labels less than this together does not know what it is asked for
TINIEST = 1e-30  # probabilities below are this: their logarithms have to be finite

AVERAGED = ("accuracy", "accuracy_half", "consistency")  # have a mean over parts

Probabilities = tuple[float, float]  # of the labels A and B


@dataclass(frozen=True)
class TwoOrders:
    """How verdicts in both orders become one.

    Args:
        combine: ``probability``: an answer's score is the mean over orders of its label's probability among all tokens
            (official); ``renormalized``: among the two labels; ``logit``: the difference of log-probs of the labels,
            which a bias to one place moves alike in both orders.
        ties: who wins where nothing tells: the ``second`` answer (official), one at ``random``, or nobody: ``skip``.
        min_confidence: pairs below have no winner; confidence is |s1 - s2| / (s1 + s2).
        require_consistent: pairs whose two orders prefer different answers have no winner.
        seed: of what ties draw.
    """

    combine: Combine = "probability"
    ties: OnTie = "random"
    min_confidence: float = 0.0
    require_consistent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if not 0 <= self.min_confidence <= 1:
            raise UserError(f"comparing: 'min_confidence' is {self.min_confidence}; it is from 0 to 1")

    def decide(self, orders: Sequence[tuple[Probabilities, Probabilities]], name: str = "") -> Decided:
        """One verdict on a pair.

        A principle goes to the answer with the strictly higher score; who has more principles wins, then who has the
        higher mean score. With ``ties: second`` a principle that is a tie goes to the second answer.

        Args:
            orders: probabilities of A and B in order 0 and in order 1, for each principle.
            name: what a tie is drawn by.
        """
        scores = [self._scores(*both) for both in orders]
        wins = [sum(one > other for one, other in scores), sum(other > one for one, other in scores)]
        first, second = (mean_of([pair[side] for pair in scores]) for side in (0, 1))
        tied = wins[0] == wins[1] and first == second
        if self.ties == "second":
            wins[1] = len(scores) - wins[0]
        winner: Literal[0, 1] | None = 0 if (wins[0] - wins[1] or first - second) > 0 else 1
        if tied and self.ties != "second":
            winner = None if self.ties == "skip" else Random(f"{self.seed} {name}").choice((0, 1))
        confidence = abs(first - second) / (first + second) if first + second else 0.0
        leanings = [sum(both[0][0] - both[0][1] for both in orders), sum(both[1][1] - both[1][0] for both in orders)]
        consistent = leanings[0] * leanings[1] > 0
        if confidence < self.min_confidence or (self.require_consistent and not consistent):
            winner = None
        flat = [pair for both in orders for pair in both]
        shares = [a / (a + b) for a, b in flat if a + b]
        bias = mean_of(shares) - 0.5 if shares else 0.0
        return Decided(first, second, winner, confidence, consistent, tied, bias, mean_of([a + b for a, b in flat]))

    def _scores(self, one: Probabilities, other: Probabilities) -> tuple[float, float]:
        """Of both answers under a principle."""
        if self.combine == "logit":
            logits = [math.log(max(a, TINIEST)) - math.log(max(b, TINIEST)) for a, b in (one, other[::-1])]
            first = 1 / (1 + math.exp(-sum(logits) / 2))
            return first, 1 - first
        if self.combine == "renormalized":
            one, other = ((a / (a + b), b / (a + b)) if a + b else (0.5, 0.5) for a, b in (one, other))
        return (one[0] + other[1]) / 2, (one[1] + other[0]) / 2


class Decided(NamedTuple):
    """One verdict on a pair.

    Args:
        first: mean score of the first answer over principles.
        second: of the second.
        winner: 0 for the first answer, 1 for the second, None for a pair that is left out.
        confidence: see TwoOrders.
        consistent: both orders prefer the same answer.
        tied: nothing told the answers apart.
        bias: mean of p(A) / (p(A) + p(B)) over orders and principles, less 1/2: towards what is shown first.
        mass: mean of p(A) + p(B).
    """

    first: float
    second: float
    winner: Literal[0, 1] | None
    confidence: float
    consistent: bool
    tied: bool
    bias: float
    mass: float

    def share(self, side: int) -> float:
        """Of the first (0) or the second answer (1) in both scores; 1/2 where neither has any."""
        total = self.first + self.second
        return (self.first, self.second)[side] / total if total else 0.5

    @property
    def sureness(self) -> float:
        """Share of the likelier answer in both scores, 1/2 to 1."""
        return 0.5 + self.confidence / 2


def two_orders_report(found: Sequence[Decided], gold: Sequence[int]) -> dict[str, float]:
    """What verdicts on pairs are worth, given which answer is better (0 or 1).

    Returns: ``accuracy`` (a pair that is left out counts half), ``accuracy_half`` (every tie counts half, however it
        was broken), ``consistency``, ``position_bias``, ``ece`` (`calibration_error`), ``low_mass``, the share of pairs
        whose labels have less than half of the probability, ``skipped`` and ``n``; NaN over no pairs.
    """
    right = [0.5 if one.winner is None else float(one.winner == best) for one, best in zip(found, gold, strict=True)]
    halved = [0.5 if one.tied else grade for one, grade in zip(found, right, strict=True)]
    return {
        "accuracy": mean(right),
        "accuracy_half": mean(halved),
        "consistency": mean(float(one.consistent) for one in found),
        "position_bias": mean_of([one.bias for one in found]),
        "ece": calibration_error([one.sureness for one in found], halved),
        "low_mass": mean(float(one.mass < LOW_MASS) for one in found),
        "skipped": mean(float(one.winner is None) for one in found),
        "n": float(len(found)),
    }


def report_by_parts(
    found: Sequence[Decided], gold: Sequence[int], parts: Mapping[str, Sequence[str | None]]
) -> dict[str, float]:
    """`two_orders_report` of all verdicts, and of those that belong together.

    Args:
        found: the verdicts.
        gold: which answer is better.
        parts: by kind (principle, source), the part to which each verdict belongs; None for one that belongs to none.

    Returns: beside the numbers of all ``<kind>/<part>/<number>``, and ``<kind>/mean/<number>`` over the parts, which
        weighs a small part like a large one. A kind with fewer than two parts tells nothing more and is left out.
    """
    report = two_orders_report(found, gold)
    for kind, belongs in parts.items():
        names = sorted({name for name in belongs if name is not None})
        rows = [[row for row, own in enumerate(belongs) if own == name] for name in names]

        def part(number: int, rows: Sequence[Sequence[int]] = rows) -> dict[str, float]:
            own = rows[number]
            return two_orders_report([found[row] for row in own], [gold[row] for row in own])

        if len(names) > 1:
            report |= {f"{kind}/{name}": value for name, value in by_group(names, {}, part, AVERAGED).items()}
    return report


def mean_of(values: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan
