"""Answers about videos before a judge, axis by axis (arXiv 2306.05424, section 4.2): what is asked, what came of it.

A question about the time of events is judged by that alone, others by correctness, detail and context; two wordings of
a question are put together, for consistency. This file knows questions and judges. It does not know where answers come
from, nor what scores come to (metrics/video/axes.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lm.benches.rubric_questions import Answered, Asking, put_questions
from lm.judging.requests import Judge, JudgeRequest
from metrics.benches.multifaceted import instance_score
from metrics.qa.long_answers import best_rouge_l
from metrics.video.axes import AxisScore, axes_report
from metrics.video.report import VideoReport
from text.errors import DataFormatError
from text.records import Located
from text.video.answer_records import QuestionRecord
from text.video.axes import AXES, SUMMARY, TEMPORAL, axes_of

Said = Sequence[str | None]


@dataclass(frozen=True)
class _Instance:
    """What is judged at once: one question, or two wordings of one.

    Args:
        places: of its questions.
        axes: by which.
    """

    places: tuple[int, ...]
    axes: tuple[str, ...]


class AxesBench:
    """Questions about videos with right answers, and how answers to them are judged.

    Args:
        questions: with right answers.
        temporal: kinds of questions about time.
        asking: how the judge is asked.

    Raises:
        DataFormatError: for a second wording without its first, or of another answer.
    """

    def __init__(
        self,
        questions: Sequence[Located[QuestionRecord]],
        temporal: tuple[str, ...] = TEMPORAL,
        asking: Asking = Asking(),  # noqa: B008  frozen
    ):
        self.questions, self.asking = questions, asking
        places = {one.record.id: place for place, one in enumerate(questions) if one.record.id is not None}
        self.instances, problems = list[_Instance](), list[str]()
        for place, one in enumerate(questions):
            first = None if one.record.rephrases is None else places.get(one.record.rephrases)
            if one.record.rephrases is not None and first is None:
                problems.append(f"{one.where}: field 'rephrases': there is no question '{one.record.rephrases}'")
            elif first is not None and questions[first].record.answer != one.record.answer:
                problems.append(
                    f"{one.where}: field 'answer': is not that of '{one.record.rephrases}', which it rephrases"
                )
            axes = axes_of(one.record.aspect, first is not None, temporal)
            if axes:
                self.instances.append(_Instance((place,) if first is None else (first, place), axes))
        if problems:
            raise DataFormatError(problems)

    def report(
        self, said: Said, judge: Judge, controls: Mapping[str, Said] | None = None, seed: int = 0
    ) -> VideoReport:
        """Have answers judged, and sum up (`axes_report`); ``summary/rouge_l`` of summaries, in percent.

        Args:
            said: to each question; None is nothing, which scores 1 unasked.
            judge: who is asked.
            controls: what was said to the same questions with frames in another order, by name.
            seed: of bootstraps.
        """
        judged = self._judged(said, judge)
        others = {name: self._scores(self._judged(of_control, judge)) for name, of_control in (controls or {}).items()}
        told = axes_report(self._scores(judged), others, judged.unread, judged.empty, seed)
        overlaps = self._overlap(said)
        for name, of_control in (controls or {}).items():
            overlaps |= {f"{name}/{key}": value for key, value in self._overlap(of_control).items()}
        return replace(told, scalars=told.scalars | overlaps)

    def _overlap(self, said: Said) -> dict[str, float]:
        """ROUGE-L of summaries and their references, if there are any; nobody is asked."""
        pairs = [(one.record, text or "") for one, text in zip(self.questions, said, strict=True)]
        found = [best_rouge_l(text, [one.answer]) or 0.0 for one, text in pairs if one.aspect == SUMMARY]
        return {"summary/rouge_l": 100 * sum(found) / len(found)} if found else {}

    def _judged(self, said: Said, judge: Judge) -> Answered:
        shown = [self._shown(one, said) for one in self.instances]
        return put_questions(judge, shown, self._requests, self.asking)

    def _shown(self, one: _Instance, said: Said) -> str:
        """An answer as a judge sees it; two wordings of which one has no answer have none."""
        answers = [said[place] or "" for place in one.places]
        if len(answers) == 1 or not all(answer.strip() for answer in answers):
            return answers[0] if len(answers) == 1 else ""
        return "\n".join(f"Answer to wording {number}: {answer}" for number, answer in enumerate(answers, 1))

    def _requests(self, number: int, response: str) -> list[JudgeRequest]:
        one = self.instances[number]
        records = [self.questions[place].record for place in one.places]
        asked = records[0].question
        if len(records) > 1:
            asked = "\n".join(f"Wording {place}: {record.question}" for place, record in enumerate(records, 1))
        name = self._name(one)
        return [JudgeRequest(f"{name}/{axis}", asked, (response,), AXES[axis], records[0].answer) for axis in one.axes]

    def _scores(self, judged: Answered) -> list[AxisScore]:
        """The mean over the judge's runs, by instance and axis."""
        found = []
        for one, runs in zip(self.instances, judged.scores, strict=True):
            record = self.questions[one.places[-1]].record
            group = SUMMARY if record.aspect == SUMMARY else ""
            for place, axis in enumerate(one.axes):
                score = instance_score([[run[place]] for run in runs])
                found.append(AxisScore(self._name(one), record.video_id, axis, score, group))
        return found

    def _name(self, one: _Instance) -> str:
        located = self.questions[one.places[-1]]
        return located.record.id or located.where
