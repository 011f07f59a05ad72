"""How often questions are answered rightly: by the one answer, by the vote of k, by the best of k (arXiv 2404.10346).

Every metric takes what is known of one question at a time and keeps sums over questions, so that it is the same for any
batches and any number of ranks. This file does not know how answers are found or compared (text/reasoning/answers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.intervals import share_interval
from metrics.tables import interval, section
from text.reasoning.answers import AnswerChecker
from text.reasoning.reasoning_records import AnswerRecord


def majority(answers: Sequence[str | None], checker: AnswerChecker) -> str | None:
    """The answer with most votes; of several the one that came first; None without any vote.

    Args:
        answers: in the order in which they were drawn. None does not vote. Answers that are equal vote together, for
            the first of them.
        checker: says which are equal.
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            meant = next((known for known in votes if checker.equal(known, answer)), answer)
            votes[meant] = votes.get(meant, 0) + 1
    return max(votes, key=lambda answer: votes[answer], default=None)


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that k of n samples hold a right one: 1 - C(n - c, k) / C(n, k), unbiased (arXiv 2107.03374, eq. 1).

    Args:
        n: samples of a question.
        right: how many of them are right, c.
        k: how many are drawn.

    Raises:
        ValueError: k is not between 1 and n, or there are more right ones than samples.
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} of {n} samples, {right} of them right")
    return 1 - comb(n - right, k) / comb(n, k)


class _Share(Metric):
    """The mean over questions of something between 0 and 1; NaN without questions."""

    full_state_update = False
    higher_is_better = True
    total: Tensor
    questions: Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("questions", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, value: float) -> None:
        """Count one question."""
        self.total += value
        self.questions += 1

    def compute(self) -> Tensor:
        """The mean, float64."""
        return self.total / self.questions


class AnswerAccuracy(_Share):
    """The share of questions whose answer is right. One that cannot be read is wrong.

    Args:
        checker: says which answers are equal.
    """

    def __init__(self, checker: AnswerChecker, **kwargs):
        super().__init__(**kwargs)
        self.checker = checker

    def update(self, answer: str | None, gold: str) -> None:
        """Add a question by its answer and the right one."""
        self.add(self.checker.equal(gold, answer))


class Unparsed(_Share):
    """The share of answers that cannot be read."""

    higher_is_better = False

    def update(self, answer: str | None) -> None:
        """Add an answer."""
        self.add(answer is None)


class CutOff(_Share):
    """The share of answers that the limit of tokens ended, not the model."""

    higher_is_better = False

    def update(self, finished: bool) -> None:
        """Add an answer."""
        self.add(not finished)


class MajorityAtK(_Share):
    """The share of questions of which the vote of the first k samples is right; see `majority`.

    Args:
        k: samples that vote.
        checker: says which answers are equal.
    """

    def __init__(self, k: int, checker: AnswerChecker, **kwargs):
        super().__init__(**kwargs)
        self.k, self.checker = k, checker

    def update(self, answers: Sequence[str | None], gold: str) -> None:
        """Add a question by the answers of its samples, in the order of the draws.

        Raises:
            ValueError: there are fewer than k.
        """
        if len(answers) < self.k:
            raise ValueError(f"maj@{self.k} of {len(answers)} samples")
        self.add(self.checker.equal(gold, majority(answers[: self.k], self.checker)))


class PassAtK(_Share):
    """The chance that k samples hold a right one, mean over questions; see `pass_at_k`.

    Args:
        k: how many are drawn.
    """

    def __init__(self, k: int, **kwargs):
        super().__init__(**kwargs)
        self.k = k

    def update(self, n: int, right: int) -> None:
        """Add a question by the number of its samples and of the right ones among them."""
        self.add(pass_at_k(n, right, self.k))


def accuracy_report(answers: Sequence[AnswerRecord]) -> str:
    """Accuracy in percent with exact 95 % intervals, also by subject and by level where questions have them.

    Args:
        answers: of a test, at least one.

    Returns: markdown.
    """
    groups = {("all", ""): list(answers)}
    for kind in ("subject", "level"):
        for answer in sorted(answers, key=lambda answer: str(getattr(answer, kind))):
            if (name := getattr(answer, kind)) is not None:
                groups.setdefault((kind, str(name)), []).append(answer)
    rows = []
    for (kind, name), group in groups.items():
        share = share_interval(sum(answer.correct for answer in group), len(group))
        percent = {"value": 100 * share.mean, "low": 100 * share.low, "high": 100 * share.high}
        called = name if name.lower().startswith(kind) else f"{kind} {name}".strip()  # MATH has "Level 5" itself
        rows.append([called, str(len(group)), interval(percent, 1)])
    cut_off = sum(answer.finish == "length" for answer in answers)
    unread = sum(answer.answer is None for answer in answers)
    about = (
        f"{cut_off:,} of {len(answers):,} answers were cut off by the limit of tokens, and in {unread:,} no answer "
        "could be read, so that they are wrong. The whole texts are in answers.jsonl."
    )
    return section("Answers that are right", about, ["questions", "how many", "percent [95 %]"], rows) + "\n"
