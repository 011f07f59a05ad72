"""Pairs of answers put to a judge in both orders and under several principles, and one verdict made of all of it.

The judge may be a language model (the policy itself, a frozen copy of it), a reward model or a program: whoever is a
`lm.judging.requests.Judge`. Knows requests and verdicts. It does not know what becomes of the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lm.judging.requests import Judge, JudgeRequest, Verdict
from metrics.judging.two_orders import Decided, Probabilities, TwoOrders
from text.judging.rubrics import Criterion

SAID: dict[str | None, Probabilities] = {"A": (1.0, 0.0), "B": (0.0, 1.0), "tie": (0.5, 0.5)}
UNKNOWN: Probabilities = (0.5, 0.5)


@dataclass(frozen=True)
class Contest:
    """Two answers to compare.

    Args:
        id: names the pair in files and messages.
        instruction: what they answer.
        answers: the two.
        criteria: what they are judged by, at least one.
        reference: an answer that deserves the highest score, if there is one.
        better: which of them is known to be better, 0 or 1; None where it is not known.
        source: where the pair is from; measures are also of each source.
    """

    id: str
    instruction: str
    answers: tuple[str, str]
    criteria: tuple[Criterion, ...]
    reference: str | None = None
    better: int | None = None
    source: str | None = None

    def requests(self) -> list[JudgeRequest]:
        """Both orders of the first principle, both of the second, and so on."""
        orders = self.answers, self.answers[::-1]
        return [
            JudgeRequest(self.id, self.instruction, order, criterion, self.reference)
            for criterion in self.criteria
            for order in orders
        ]


class Judged(NamedTuple):
    """What came of a contest.

    Args:
        decided: the verdict.
        unread: how many of the questions about it had no verdict; they count as undecided.
    """

    decided: Decided
    unread: int


def compare(judge: Judge, contests: Sequence[Contest], rule: TwoOrders) -> list[Judged]:
    """The verdict on each pair, in their order; all questions are put at once.

    Args:
        judge: who is asked.
        contests: the pairs.
        rule: by which verdicts become one.
    """
    requests = [request for contest in contests for request in contest.requests()]
    verdicts = iter(judge.judge(requests) if requests else [])
    found = []
    for contest in contests:
        given = [next(verdicts) for _ in range(2 * len(contest.criteria))]
        orders = [(likelihoods(one), likelihoods(other)) for one, other in zip(given[::2], given[1::2], strict=True)]
        name = repr((contest.instruction, contest.answers))
        found.append(Judged(rule.decide(orders, name), sum(verdict.unparsed for verdict in given)))
    return found


def likelihoods(verdict: Verdict) -> Probabilities:
    """Probabilities of A and B; whoever gives none is sure of what he says."""
    if len(verdict.probabilities) == 2:
        mass = 1.0 if verdict.mass is None else verdict.mass
        first, second = verdict.probabilities
        return first * mass, second * mass
    return SAID.get(verdict.preference, UNKNOWN)
