"""The one protocol by which answers are judged, a judge that is a program, and one judge for all ranks.

Whoever judges (a program here, a language model elsewhere) gets requests and gives a verdict on each. This file knows
no model and no benchmark; what a verdict looks like in words is in text/judging/verdicts.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch.distributed as dist

from lm.steps.gather import merge_over_ranks
from text.errors import UserError
from text.judging.rubrics import Criterion
from text.suggestions import did_you_mean

Preference = Literal["A", "B", "tie"]


@dataclass(frozen=True)
class JudgeRequest:
    """What a judge is asked.

    Args:
        id: names the request in files and messages; what a judge says does not depend on it.
        instruction: what the answers answer, a system message included.
        responses: one answer to score, or two to compare (A, then B).
        rubric: what counts; a comparison can do without descriptions of scores.
        reference: an answer that deserves the highest score, if there is one.
        run: which of several times the question is put; a judge that draws draws anew for each.
    """

    id: str
    instruction: str
    responses: tuple[str, ...]
    rubric: Criterion
    reference: str | None = None
    run: int = 0

    @property
    def seen(self) -> str:
        """Hash of all that decides the verdict: what the judge sees, and the run."""
        rubric = self.rubric.model_dump(mode="json")
        told = [self.instruction, self.responses, rubric, self.reference, self.run]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def __post_init__(self) -> None:
        """Refuse what no judge can answer."""
        if len(self.responses) not in (1, 2):
            raise UserError(f"request '{self.id}': {len(self.responses)} responses; a judge takes 1 or compares 2")


@dataclass(frozen=True)
class Verdict:
    """What a judge said.

    Args:
        score: of a single answer, on the scale of the rubric; None for a comparison, or where none was understood.
        preference: the better of two answers; None for a single one, or where none was understood.
        feedback: the judge's reasons in words.
        reason: why no verdict could be read, such as "no_marker"; "ok" otherwise.
        parsed: false if none could be read; there may be one all the same, that the judge was made to name.
        attempts: how often the judge wrote before one could be read.
        probabilities: of the scores 1, 2, ... or of A and B among themselves, where the judge tells.
        mass: probability that the judge gave to all of them together; a low one tells that it does not know what
            it is asked for.
    """

    score: float | None = None
    preference: Preference | None = None
    feedback: str = ""
    reason: str = "ok"
    parsed: bool = True
    attempts: int = 1
    probabilities: tuple[float, ...] = ()
    mass: float | None = None

    def __post_init__(self) -> None:
        """What comes out of a file is a list."""
        object.__setattr__(self, "probabilities", tuple(self.probabilities))

    @property
    def unparsed(self) -> bool:
        """Whether the judge came to no verdict: such ones are counted, and never enter a mean."""
        return self.score is None and self.preference is None


@runtime_checkable
class Judge(Protocol):
    """Whoever can judge."""

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order."""
        ...


Scorer = Callable[[JudgeRequest, str], float | None]


class ProgrammaticJudge(Judge):
    """Scores answers by a program for each rubric: no model, no mistakes, the same verdict every time.

    Two answers are compared by their scores.

    Args:
        scorers: by the name of the rubric (`Rubric.name`): the score of a response to a request, or None if it has
            none.
        other: scores by every other rubric: of a benchmark whose instances have rubrics of their own.
    """

    def __init__(self, scorers: Mapping[str, Scorer] | None = None, other: Scorer | None = None):
        self.scorers, self.other = dict(scorers or {}), other

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order.

        Raises:
            UserError: for a rubric that has no scorer.
        """
        return [self._verdict(request) for request in requests]

    def _verdict(self, request: JudgeRequest) -> Verdict:
        scorer = self.scorers.get(request.rubric.name, self.other)
        if scorer is None:
            raise UserError(
                f"request '{request.id}': no scorer for the rubric '{request.rubric.name}'."
                + (did_you_mean(request.rubric.name, self.scorers) or f" There are {', '.join(self.scorers)}")
            )
        given = [scorer(request, response) for response in request.responses]
        scores = [score for score in given if score is not None]
        if len(scores) < len(given):
            return Verdict(reason="no_value", parsed=False)
        if len(scores) == 1:
            return Verdict(score=scores[0])
        return Verdict(preference=preferred(*scores))


def preferred(first: float, second: float, tie_within: float = 0.0) -> Preference:
    """The answer with the higher score; a tie where they differ by no more than ``tie_within``."""
    if abs(first - second) <= tie_within:
        return "tie"
    return "A" if first > second else "B"


class SharedJudge(Judge):
    """A judge on every rank, each of which judges its share of the questions; all ranks must ask, and the same.

    Equal questions go to one rank: what was asked once is not asked again.

    Args:
        judge: who is asked.
    """

    def __init__(self, judge: Judge):
        self.own = judge

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order, on every rank."""
        shared = dist.is_available() and dist.is_initialized()
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        mine = [number for number, request in enumerate(requests) if int(request.seen, 16) % world_size == rank]
        given = self.own.judge([requests[number] for number in mine]) if mine else []
        found = merge_over_ranks(dict(zip(mine, given, strict=True)))
        return [found[number] for number in range(len(requests))]
