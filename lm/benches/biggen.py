"""A benchmark whose instances bring their own rubric and reference answer: BiGGen Bench (arXiv 2406.05761).

This file knows instances and how their questions are put. It does not know where answers come from
(modules/biggen_bench/biggen_bench.py), nor what scores come to (metrics/benches/capability_report.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm.benches.rubric_questions import Asking, put_questions
from lm.judging.requests import Judge, JudgeRequest
from metrics.benches.capability import Impute, SelfConsistency
from metrics.benches.capability_report import CapabilityReport, Evaluator, Summing, capability_report
from text.errors import UserError
from text.judging.biggen import BiggenRecord
from text.judging.rubrics import Rubric
from text.records import Located


@dataclass(frozen=True)
class Grading(Asking):
    """How answers are judged and scores summed up.

    Args:
        runs: see Asking; the paper's self-consistency takes 5.
        empty_policy: see Asking.
        self_consistency: what several ratings of one answer by one evaluator come to: mean, majority or median.
        panel: what the scores of several evaluators come to, likewise.
        impute: what counts for a score that could not be read: ``none``, or ``"1"``, the lowest score.
        show_system_prompt: put the system prompt before the instruction that the evaluator sees; officially it does not
            see it.
    """

    self_consistency: SelfConsistency = "mean"
    panel: SelfConsistency = "mean"
    impute: Impute = "none"
    show_system_prompt: bool = False

    def instruction(self, system: str | None, prompt: str) -> str:
        """What an evaluator is told was asked."""
        return f"{system}\n\n{prompt}" if self.show_system_prompt and system else prompt


class CapabilityBench:
    """Instances by capability and task, and how answers to them are scored (`lm.protocols.Benchmark`).

    Args:
        records: the instances.
        grading: how answers are judged.
        rubrics: in place of the instances' own, one each.
    """

    def __init__(
        self,
        records: Sequence[Located[BiggenRecord]],
        grading: Grading = Grading(),
        rubrics: Sequence[Rubric] | None = None,
    ):
        self.records, self.grading = records, grading
        self.rubrics = [located.record.rubric for located in records] if rubrics is None else rubrics

    def requests(self) -> Sequence[Located[BiggenRecord]]:
        """The instances, in the order of the file."""
        return self.records

    def score(self, responses: Sequence[str], judge: Any | None) -> dict[str, float]:
        """Means by capability and overall, from one answer per instance."""
        if judge is None:
            raise UserError("answers to rubrics cannot be scored without a judge")
        found = self.report(responses, {"judge": judge}).scalars
        return {name: value for name, value in found.items() if "/" not in name}

    def report(
        self,
        responses: Sequence[str | None],
        judges: Mapping[str, Judge],
        recorded: Sequence[Evaluator] = (),
        others: Sequence[Mapping[str, Any]] = (),
    ) -> CapabilityReport:
        """Judge the answers and sum up.

        Args:
            responses: one per instance; None where there is none.
            judges: who is asked, by name.
            recorded: what further evaluators have said already.
            others: scores of another model; see `metrics.benches.capability.delta`.
        """
        evaluators = [*recorded, *(self.evaluator(name, responses, judge) for name, judge in judges.items())]
        names = [one.name for one in evaluators]
        if not names or len(set(names)) < len(names):
            raise UserError(f"evaluators need names of their own, at least one of them: {', '.join(names) or 'none'}")
        instances = [
            {"id": one.record.id, "capability": one.record.capability, "task": one.record.task, "response": response}
            for one, response in zip(self.records, responses, strict=True)
        ]
        grading = self.grading
        summing = Summing(grading.self_consistency, grading.panel, grading.impute)
        return capability_report(instances, evaluators, summing, others)

    def evaluator(self, name: str, responses: Sequence[str | None], judge: Judge) -> Evaluator:
        """Put the question of every instance."""
        judged = put_questions(judge, responses, self._question, self.grading)
        return Evaluator(name, [[run[0] for run in runs] for runs in judged.scores], judged.feedback, judged.unread)

    def _question(self, number: int, response: str) -> list[JudgeRequest]:
        record = self.records[number].record
        asked = self.grading.instruction(record.system, str(record.prompt))
        return [JudgeRequest(record.id, asked, (response,), self.rubrics[number], record.reference_answer)]
