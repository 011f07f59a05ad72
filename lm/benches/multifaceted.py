"""A benchmark whose answers are judged rubric by rubric: Multifaceted Bench (arXiv 2405.17977, section 4).

One question to the judge per rubric, so that no criterion colours another. This file knows instances and judges. It
does not know where answers come from (modules/janus/multifaceted_bench.py), nor what scores come to
(metrics/benches/multifaceted_report.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lm.benches.rubric_questions import Answered, Asking, put_questions
from lm.judging.recorded_answers import read_responses
from lm.judging.requests import Judge, JudgeRequest
from metrics.benches.multifaceted import instance_score
from metrics.benches.multifaceted_report import BenchReport, Instance, bench_report
from text.chat.multifaceted import BenchRecord, group_of, next_variants
from text.errors import UserError
from text.records import Located

Scores = Sequence[float | None]


@dataclass(frozen=True)
class RubricJudging(Asking):
    """How answers are judged; the paper averages 3 runs, as its judge draws.

    Args:
        runs: see Asking.
        empty_policy: see Asking.
        good_threshold: two answers of one score are both good if they score at least this.
        tie_eps: scores that differ by no more are a tie.
        baseline_responses: recorded answers of an opponent (responses.jsonl, or instances.jsonl of its own test), which
            are judged too, for win rates.
        sensitivity: also put the questions of each instance about the answer to the next variant of its instruction;
            twice the calls.
    """

    good_threshold: float = 4.0
    tie_eps: float = 0.0
    baseline_responses: str | None = None
    sensitivity: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        super().__post_init__()
        if self.tie_eps < 0:
            raise UserError(f"judging: 'tie_eps' is {self.tie_eps}; it must be 0 or more")


class RubricBench:
    """Instructions under system messages, and how answers to them are scored (`lm.protocols.Benchmark`).

    Args:
        records: the instances.
        judging: how answers are judged.
    """

    def __init__(self, records: Sequence[Located[BenchRecord]], judging: RubricJudging = RubricJudging()):
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
            swapped = instance_scores(self.judge([None if n is None else first[n] for n in others], judge))
        opponent: Scores = nothing
        if judging.baseline_responses is not None:
            theirs = read_responses(judging.baseline_responses, [located.name for located in self.records])
            opponent = instance_scores(self.judge([texts[0] for texts in theirs], judge))
        return bench_report(
            list(self._instances(answers, draws, swapped, opponent)),
            questions=draws[0].questions,
            nulls=draws[0].nulls,
            empty=draws[0].empty,
            unread=draws[0].unread,
            versus=judging.baseline_responses is not None,
            tie_eps=judging.tie_eps,
            good_threshold=judging.good_threshold,
        )

    def judge(self, responses: Sequence[str | None], judge: Judge) -> Answered:
        """Put every question about the answers, one per instance; None asks nothing about that instance."""
        return put_questions(judge, responses, self._questions, self.judging)

    def _questions(self, number: int, response: str) -> list[JudgeRequest]:
        located = self.records[number]
        record = located.record
        return [
            JudgeRequest(f"{located.name}/{place}", question(record), (response,), rubric, record.reference_answer)
            for place, rubric in enumerate(record.rubric)
        ]

    def _instances(
        self, answers: Sequence[Sequence[str]], draws: Sequence[Answered], swapped: Scores, opponent: Scores
    ) -> Iterator[Instance]:
        rubrics, scores = rubric_scores(draws[0]), [instance_scores(judged) for judged in draws]
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


def instance_scores(judged: Answered) -> list[float | None]:
    """The score of each instance."""
    return [instance_score(runs) for runs in judged.scores]


def rubric_scores(judged: Answered) -> list[list[float | None]]:
    """The score of each rubric of each instance: the mean over judge runs."""
    by_rubric = [zip(*runs, strict=True) for runs in judged.scores]
    return [[instance_score([[score] for score in scores]) for scores in rubrics] for rubrics in by_rubric]
