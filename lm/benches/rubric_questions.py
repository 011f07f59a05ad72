"""How answers to instances of a benchmark are put before a judge: every rubric by itself, several times if so wanted.

This file knows requests and verdicts. It does not know what an instance is, nor what its scores come to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lm.judging.requests import Judge, JudgeRequest
from metrics.benches.multifaceted import LOWEST
from metrics.judging.unread import Unread
from text.errors import UserError

EmptyPolicy = Literal["lowest", "judge"]
Questions = Callable[[int, str], list[JudgeRequest]]


@dataclass(frozen=True)
class Asking:
    """How a judge is asked.

    Args:
        runs: how often each question is put, to a judge that draws.
        empty_policy: an answer without a word scores 1 on every rubric without being judged (``lowest``), or is judged.
    """

    runs: int = 1
    empty_policy: EmptyPolicy = "lowest"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.runs < 1:
            raise UserError(f"judging: 'runs' is {self.runs}; it must be 1 or more")


@dataclass
class Answered:
    """What a judge made of one answer per instance.

    Args:
        scores: by instance, judge run and rubric; None where the judge came to no verdict. No run at all where there
            was no answer.
        feedback: by instance, the judge's reasons in its first run.
        empty: answers without a word.
        unread: verdicts that could not be read. They have no score, even where the judge was made to name one.
    """

    scores: list[list[list[float | None]]]
    feedback: list[str]
    empty: int
    unread: list[Unread] = field(default_factory=list)

    @property
    def questions(self) -> int:
        """How many scores there should be."""
        return sum(len(scores) for runs in self.scores for scores in runs)

    @property
    def nulls(self) -> int:
        """How many of them there are not."""
        return sum(score is None for runs in self.scores for scores in runs for score in scores)


def put_questions(judge: Judge, responses: Sequence[str | None], questions: Questions, asking: Asking) -> Answered:
    """Put every question about the answers.

    Args:
        judge: who is asked, once for all.
        responses: one per instance; None asks nothing about that instance.
        questions: about the answer to an instance of this number, one per rubric.
        asking: how often, and what about empty answers.
    """
    asked: list[JudgeRequest] = []
    places: list[tuple[int, int, int]] = []
    judged = Answered([], [""] * len(responses), 0)
    for number, response in enumerate(responses):
        if response is None:
            judged.scores.append([])
            continue
        rubrics, empty = questions(number, response), not response.strip()
        judged.empty += empty
        spared = empty and asking.empty_policy == "lowest"
        judged.scores.append([[LOWEST if spared else None] * len(rubrics) for _ in range(asking.runs)])
        for run in range(0 if spared else asking.runs):
            places += [(number, run, place) for place in range(len(rubrics))]
            asked += [replace(request, run=run) for request in rubrics]
    verdicts = judge.judge(asked) if asked else []
    for (number, run, place), asked_of, verdict in zip(places, asked, verdicts, strict=True):
        judged.scores[number][run][place] = verdict.score if verdict.parsed else None
        if not verdict.parsed or verdict.score is None:
            judged.unread.append(Unread(asked_of.id, verdict.reason, verdict.feedback))
        if run == place == 0:
            judged.feedback[number] = verdict.feedback
    return judged
