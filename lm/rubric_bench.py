"""A benchmark whose answers are judged rubric by rubric: Multifaceted Bench (arXiv 2405.17977, section 4).

One question to the judge per rubric, so that no criterion colours another. This file knows instances and judges. It
does not know where answers come from (modules/multifaceted_bench.py), nor what scores come to
(metrics/multifaceted_report.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lm.judging import Judge, JudgeRequest
from lm.recorded import read_responses
from metrics.multifaceted import LOWEST, instance_score
from metrics.multifaceted_report import BenchReport, Instance, bench_report
from text.errors import UserError
from text.multifaceted import BenchRecord, group_of, next_variants
from text.records import Located

EmptyPolicy = Literal["lowest", "judge"]
Scores = Sequence[float | None]


@dataclass(frozen=True)
class Judging:
    """How answers are judged.

    Args:
        runs: how often each question is put; the paper averages 3, as its judge draws.
        empty_policy: an answer without a word scores 1 on every rubric without being judged (``lowest``), or is judged.
        good_threshold: two answers of one score are both good if they score at least this.
        tie_eps: scores that differ by no more are a tie.
        baseline_responses: recorded answers of an opponent (responses.jsonl, or instances.jsonl of its own test), which
            are judged too, for win rates.
        sensitivity: also put the questions of each instance about the answer to the next variant of its instruction;
            twice the calls.
    """

    runs: int = 1
    empty_policy: EmptyPolicy = "lowest"
    good_threshold: float = 4.0
    tie_eps: float = 0.0
    baseline_responses: str | None = None
    sensitivity: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.runs < 1 or self.tie_eps < 0:
            raise UserError(f"judging: 'runs' is {self.runs} and 'tie_eps' {self.tie_eps}; they must be >= 1 and >= 0")


@dataclass
class Judged:
    """What a judge made of one answer per instance.

    Args:
        scores: by instance, judge run and rubric; None where the judge came to no verdict.
        empty: answers without a word.
    """

    scores: list[list[list[float | None]]]
    empty: int

    @property
    def questions(self) -> int:
        """How many scores there should be."""
        return sum(len(scores) for runs in self.scores for scores in runs)

    @property
    def nulls(self) -> int:
        """How many of them there are not."""
        return sum(score is None for runs in self.scores for scores in runs for score in scores)

    def instances(self) -> list[float | None]:
        """The score of each instance."""
        return [instance_score(runs) for runs in self.scores]

    def rubrics(self) -> list[list[float | None]]:
        """The score of each rubric of each instance: the mean over judge runs."""
        by_rubric = [zip(*runs, strict=True) for runs in self.scores]
        return [[instance_score([[score] for score in scores]) for scores in rubrics] for rubrics in by_rubric]


class RubricBench:
    """Instructions under system messages, and how answers to them are scored (`lm.protocols.Benchmark`).

    Args:
        records: the instances.
        judging: how answers are judged.
    """

    def __init__(self, records: Sequence[Located[BenchRecord]], judging: Judging = Judging()):
        self.records, self.judging = records, judging
        self.groups = [group_of(located.record) for located in records]

    def requests(self) -> Sequence[Located[BenchRecord]]:
        """The instances, in the order of the file."""
        return self.records

    def score(self, responses: Sequence[Any], judge: Any | None) -> dict[str, float]:
        """The scalars of `report`, from one answer per instance."""
        if judge is None:
            raise UserError("answers to rubrics cannot be scored without a judge")
        return self.report([[response] for response in responses], judge).scalars

    def report(self, answers: Sequence[Sequence[str]], judge: Judge) -> BenchReport:
        """Judge the answers, and whatever else the settings ask for.

        Args:
            answers: to each instance, one or more; the first is the one that is scored.
            judge: who is asked.
        """
        judging, nothing = self.judging, [None] * len(self.records)
        first = [texts[0] for texts in answers]
        draws = [self.judge([texts[n] for texts in answers], judge) for n in range(min(map(len, answers)))]
        swapped: Scores = nothing
        if judging.sensitivity:
            others = next_variants(self.groups)
            swapped = self.judge([None if n is None else first[n] for n in others], judge).instances()
        opponent: Scores = nothing
        if judging.baseline_responses is not None:
            theirs = read_responses(judging.baseline_responses, [located.name for located in self.records])
            opponent = self.judge([texts[0] for texts in theirs], judge).instances()
        return bench_report(
            list(self._instances(answers, draws, swapped, opponent)),
            questions=draws[0].questions,
            nulls=draws[0].nulls,
            empty=draws[0].empty,
            versus=judging.baseline_responses is not None,
            tie_eps=judging.tie_eps,
            good_threshold=judging.good_threshold,
        )

    def judge(self, responses: Sequence[str | None], judge: Judge) -> Judged:
        """Put every question about the answers, one per instance; None asks nothing about that instance."""
        asked: list[JudgeRequest] = []
        places: list[tuple[int, int, int]] = []
        scores: list[list[list[float | None]]] = []
        for number, (located, response) in enumerate(zip(self.records, responses, strict=True)):
            rubrics = located.record.rubric
            lowest = response is not None and not response.strip() and self.judging.empty_policy == "lowest"
            runs = range(self.judging.runs if response is not None else 0)
            scores.append([[LOWEST if lowest else None] * len(rubrics) for _ in runs])
            if response is not None and not lowest:
                places += [(number, run, place) for run in runs for place in range(len(rubrics))]
                asked += [_question(located, response, place, run) for run in runs for place in range(len(rubrics))]
        verdicts = judge.judge(asked) if asked else []
        for (number, run, place), verdict in zip(places, verdicts, strict=True):
            scores[number][run][place] = verdict.score
        return Judged(scores, sum(response is not None and not response.strip() for response in responses))

    def _instances(
        self, answers: Sequence[Sequence[str]], draws: Sequence[Judged], swapped: Scores, opponent: Scores
    ) -> Iterator[Instance]:
        rubrics, scores = draws[0].rubrics(), [judged.instances() for judged in draws]
        for number, located in enumerate(self.records):
            names = [rubric.name or rubric.criteria for rubric in located.record.rubric]
            yield Instance(
                id=located.name,
                instruction=self.groups[number],
                source=located.record.source or "",
                response=answers[number][0],
                score=scores[0][number],
                rubrics=dict(zip(names, rubrics[number], strict=True)),
                opponent=opponent[number],
                swapped=swapped[number],
                draws=tuple(of_draw[number] for of_draw in scores),
                responses=tuple(answers[number]),
            )


def question(record: BenchRecord) -> str:
    """The instruction as a judge sees it: the system message, a line break, what the user says."""
    said = record.prompt if isinstance(record.prompt, str) else "\n".join(turn.content for turn in record.prompt)
    return f"{record.system}\n{said}" if record.system else said


def _question(located: Located[BenchRecord], response: str, place: int, run: int) -> JudgeRequest:
    record = located.record
    return JudgeRequest(
        id=f"{located.name}/{place}#{run}",
        instruction=question(record),
        responses=(response,),
        rubric=record.rubric[place],
        reference=record.reference_answer,
    )
