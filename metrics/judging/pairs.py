"""Verdicts on pairs of responses against gold verdicts, under rules for ties; between positions and between formats.

A verdict is ``"A"``, ``"B"``, ``"tie"`` or None (could not be read). Instead of a list a tensor of margins will do:
above 0 says A, below 0 B, 0 a tie, NaN nothing; so that two scores are compared by their difference. Counts are all
that is kept: they add up over batches and ranks.

Shape suffixes: O outcomes (A, tie, B, unread), G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.judging.groups import by_group, group_numbers
from text.errors import UserError

Verdicts = Tensor | Sequence[str | None]
Ties = Literal["wrong", "half", "excluded", "counted"]
TIES = ("wrong", "half", "excluded", "counted")
MARGIN = {"A": 1.0, "tie": 0.0, "B": -1.0, None: math.nan}
A, TIE, B, UNREAD = range(4)
OUTCOMES = 4


def pairwise_accuracy(gold: Verdicts, pred: Verdicts, ties: Ties = "wrong") -> Tensor:
    """The share of pairs whose verdict is the gold one, float64. A verdict that could not be read is wrong.

    Args:
        gold: [n]; pairs without a gold verdict do not count.
        pred: [n].
        ties: ``wrong``: gold ties are left out, a predicted tie is wrong (arXiv 2405.01535: "without tie"). ``half``:
            gold ties are left out, a predicted tie counts half. ``excluded``: pairs with either kind of tie are left
            out. ``counted``: a gold tie is right where a tie is predicted, and only there ("with tie").

    Returns: a scalar, NaN over no pairs.

    Raises:
        UserError: the rule or a verdict is not known.
        ValueError: the lengths differ.
    """
    return accuracy(counts(gold, pred), ties)


def accuracy(counts_OO: Tensor, ties: Ties) -> Tensor:
    """`pairwise_accuracy` of counts [gold, predicted]."""
    if ties not in TIES:
        raise UserError(f"ties '{ties}' is not known: {', '.join(TIES)}")
    decided = counts_OO[[A, B]]
    right, n = counts_OO[A, A] + counts_OO[B, B], decided.sum()
    if ties == "half":
        right = right + decided[:, TIE].sum() / 2
    elif ties == "excluded":
        n = n - decided[:, TIE].sum()
    elif ties == "counted":
        right, n = right + counts_OO[TIE, TIE], n + counts_OO[TIE].sum()
    return right / n


def consistency(first: Verdicts, second: Verdicts) -> Tensor:
    """The share of pairs on which two verdicts are the same, float64.

    The two may come from both orders of a pair (then the second names the response, not its place) or from two formats.

    Args:
        first: [n].
        second: [n]. Pairs of which either could not be read do not count.

    Returns: a scalar, NaN over no pairs.
    """
    return agreement(counts(first, second))


def agreement(counts_OO: Tensor) -> Tensor:
    """`consistency` of counts [first, second]."""
    read = counts_OO[:UNREAD, :UNREAD]
    return read.trace() / read.sum()


def merge_orders(forward: Verdicts, backward: Verdicts) -> Tensor:
    """One verdict from both orders, as margins [n]: where they agree, theirs; else a tie; NaN where one is unread."""
    one, other = signs(margins(forward)), signs(margins(backward))
    return torch.where(one == other, one, torch.where(one.isnan() | other.isnan(), math.nan, 0.0))


def margins(verdicts: Verdicts) -> Tensor:
    """Verdicts as numbers, float64 [n].

    Raises:
        UserError: a verdict that is none.
    """
    if isinstance(verdicts, Tensor):
        return verdicts.detach().to("cpu", torch.float64)
    if strange := next((verdict for verdict in verdicts if verdict not in MARGIN), None):
        raise UserError(f"{strange!r} is no verdict: 'A', 'B', 'tie', or None where there is none")
    return torch.tensor([MARGIN[verdict] for verdict in verdicts], dtype=torch.float64)


def signs(numbers: Tensor) -> Tensor:
    """1, 0 or -1, and NaN of NaN, which torch takes for 0."""
    return torch.where(numbers.isnan(), numbers, numbers.sign())


def counts(*verdicts: Verdicts) -> Tensor:
    """How often each combination of outcomes occurs, float64 [O, ...] with a dimension for every list of verdicts."""
    found = [outcomes(each) for each in verdicts]
    if len({len(each) for each in found}) != 1:
        raise ValueError(f"verdicts of different numbers of pairs: {', '.join(str(len(each)) for each in found)}")
    return count(torch.stack(found), [OUTCOMES] * len(found))


def outcomes(verdicts: Verdicts) -> Tensor:
    """A, TIE, B or UNREAD of each pair, int64 [n]."""
    return torch.nan_to_num(1 - signs(margins(verdicts)), nan=float(UNREAD)).long()


def count(places: Tensor, sizes: Sequence[int]) -> Tensor:
    """How often each place of a table occurs, float64 of shape sizes, given indices [dimensions, n]."""
    table = torch.zeros(*sizes, dtype=torch.float64)
    return table.index_put_(tuple(places), torch.ones(places.shape[1], dtype=torch.float64), accumulate=True)


class PairwiseAccuracy(Metric):
    """Accuracy of verdicts on pairs, under every rule for ties.

    Args:
        groups: parts that are also reported one by one; the mean over them weighs small ones like large ones.
        **kwargs: of torchmetrics.
    """

    higher_is_better = True
    full_state_update = False
    counts_GOO: Tensor

    def __init__(self, groups: Sequence[str] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        self.groups = tuple(groups)
        table = torch.zeros(max(len(groups), 1), OUTCOMES, OUTCOMES, dtype=torch.float64)
        self.add_state("counts_GOO", table, dist_reduce_fx="sum")

    def update(self, gold: Verdicts, pred: Verdicts, groups: Sequence[str] | None = None) -> None:
        """Add pairs, see `pairwise_accuracy`.

        Raises:
            UserError: a verdict or a group is not known.
        """
        numbers = group_numbers(groups, self.groups, len(gold))
        found = torch.stack([numbers, outcomes(gold), outcomes(pred)])
        self.counts_GOO += count(found, self.counts_GOO.shape).to(self.device)

    def compute(self) -> dict[str, float]:
        """Over all pairs with a gold verdict.

        Returns: ``acc_no_tie``, ``acc_half``, ``acc_excluded`` and ``acc_with_tie`` (rules ``wrong``, ``half``,
            ``excluded`` and ``counted`` of `pairwise_accuracy`), ``parse_failure_rate`` and ``n``; with groups also
            ``<group>/...`` of each and ``mean/acc_...`` over them.
        """
        table = self.counts_GOO.cpu()
        return by_group(self.groups, _accuracies(table.sum(0)), lambda number: _accuracies(table[number]), [*RULES])


RULES: dict[str, Ties] = {
    "acc_no_tie": "wrong",
    "acc_half": "half",
    "acc_excluded": "excluded",
    "acc_with_tie": "counted",
}


def _accuracies(counts_OO: Tensor) -> dict[str, float]:
    known = counts_OO[:UNREAD]
    found = {name: accuracy(counts_OO, rule) for name, rule in RULES.items()}
    found |= {"parse_failure_rate": known[:, UNREAD].sum() / known.sum(), "n": known.sum()}
    return {name: float(value) for name, value in found.items()}


class _TwoVerdicts(Metric):
    """Counts of gold and two verdicts on each pair."""

    higher_is_better = True
    full_state_update = False
    counts_OOO: Tensor

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        table = torch.zeros(OUTCOMES, OUTCOMES, OUTCOMES, dtype=torch.float64)
        self.add_state("counts_OOO", table, dist_reduce_fx="sum")

    def add(self, first: Verdicts, second: Verdicts, gold: Verdicts | None) -> None:
        """Count pairs."""
        gold = [None] * len(first) if gold is None else gold
        self.counts_OOO += counts(gold, first, second).to(self.device)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Counts of [gold, first], [gold, second] and [first, second]."""
        table = self.counts_OOO.cpu()
        return table.sum(2), table.sum(1), table.sum(0)


class PositionConsistency(_TwoVerdicts):
    """What a judge makes of a pair in one order and in the other."""

    def update(self, forward: Verdicts, backward: Verdicts, gold: Verdicts | None = None) -> None:
        """Add pairs.

        Args:
            forward: verdicts with response A shown first, [n].
            backward: verdicts with response B shown first, [n]. They name the response too: A is the same response in
                both.
            gold: [n], where it is known.
        """
        self.add(forward, backward, gold)

    def compute(self) -> dict[str, float]:
        """Over all pairs.

        Returns: ``consistency``, see `consistency`; ``first_bias``, the share of verdicts for the response shown first,
            less 1/2, a tie counting half; ``acc_both``, right in both orders, and ``acc_mean``, the mean accuracy of
            the orders, of pairs without a gold tie; ``parse_failure_rate`` of verdicts, and ``n`` pairs.
        """
        gold_forward, gold_backward, orders = self.tables()
        forward, backward = orders.sum(1), orders.sum(0)
        read = (forward + backward)[:UNREAD].sum()
        both = self.counts_OOO.cpu()
        found = {
            "consistency": agreement(orders),
            "first_bias": (forward[A] + backward[B] + (forward + backward)[TIE] / 2) / read - 0.5,
            "acc_both": (both[A, A, A] + both[B, B, B]) / both[[A, B]].sum(),
            "acc_mean": (accuracy(gold_forward, "wrong") + accuracy(gold_backward, "wrong")) / 2,
            "parse_failure_rate": 1 - read / (2 * orders.sum()),
            "n": orders.sum(),
        }
        return {name: float(value) for name, value in found.items()}


class FormatConsistency(_TwoVerdicts):
    """What a judge makes of a pair when it compares, and when it scores each response by itself."""

    def update(self, pairwise: Verdicts, direct: Verdicts, gold: Verdicts | None = None) -> None:
        """Add pairs.

        Args:
            pairwise: verdicts on pairs, [n].
            direct: verdicts that follow from two scores: their differences, [n].
            gold: [n], where it is known.
        """
        self.add(pairwise, direct, gold)

    def compute(self) -> dict[str, float]:
        """Over all pairs.

        Returns: ``delta``, accuracy of pairwise verdicts less that of direct ones, ties being wrong (arXiv 2405.01535,
            table 13, there in points of 100); ``agreement``, see `consistency`; ``n`` pairs.
        """
        pairwise, direct, formats = self.tables()
        found = {
            "delta": accuracy(pairwise, "wrong") - accuracy(direct, "wrong"),
            "agreement": agreement(formats),
            "n": formats.sum(),
        }
        return {name: float(value) for name, value in found.items()}
