"""TempCompass' captions before a judge (arXiv 2403.00476): what a caption tells is asked as a choice.

Whoever reads a caption, and has not seen the video, answers a question about it by one of its options. TempCompass asks
GPT-3.5 for a letter; here one of the house's judges scores every option by what the caption says, and the letter is
that of the best, if there is one. Which letter is right is then the rule of choices. This file knows questions and
judges. It does not know where captions come from, nor what accuracies come to (metrics/video/choices.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm.benches.rubric_questions import Asking, put_questions
from lm.judging.requests import Judge, JudgeRequest
from metrics.benches.multifaceted import instance_score
from metrics.video.answers import answers_report
from metrics.video.choices import AnsweredQuestion
from metrics.video.report import VideoReport
from text.records import Located
from text.video.answer_records import QuestionRecord
from text.video.axes import CAPTION
from text.video.options import letter_named, options_in, stem_of


class CaptionBench:
    """Captions that were asked for, and how it is judged which option they speak for.

    Args:
        questions: with a choice (``mc_question``, ``mc_answer``).
        asking: how the judge is asked.
    """

    def __init__(self, questions: Sequence[Located[QuestionRecord]], asking: Asking = Asking()):  # noqa: B008  frozen
        self.questions, self.asking = questions, asking
        self.options = [options_in(one.record.mc_question or "") for one in questions]

    def report(
        self,
        said: Sequence[str | None],
        judge: Judge,
        controls: Mapping[str, Sequence[str | None]] | None = None,
        seed: int = 0,
    ) -> VideoReport:
        """Have captions judged, and sum up: accuracies in percent (`answers_report`), and ``unread`` verdicts.

        Args:
            said: the captions; None is nothing, which is wrong.
            judge: who is asked.
            controls: those of the same videos with frames in another order, by name.
            seed: of bootstraps.
        """
        answered, unread = self._judged(said, judge)
        others = {name: self._judged(of_control, judge)[0] for name, of_control in (controls or {}).items()}
        told = answers_report(answered, said, others, seed)
        return replace(told, scalars=told.scalars | {"unread": float(unread)})

    def _judged(self, said: Sequence[str | None], judge: Judge) -> tuple[list[AnsweredQuestion], int]:
        found = put_questions(judge, [one or "" for one in said], self._requests, self.asking)
        return [self._answered(number, runs) for number, runs in enumerate(found.scores)], len(found.unread)

    def _requests(self, number: int, caption: str) -> list[JudgeRequest]:
        stem, options = stem_of(self.questions[number].record.mc_question or ""), self.options[number].items()
        asked = f"A video is described like this:\n{caption}\n\nBy this description: {stem}"
        return [JudgeRequest(f"{self._name(number)}/{letter}", asked, (text,), CAPTION) for letter, text in options]

    def _answered(self, number: int, runs: Sequence[Sequence[float | None]]) -> AnsweredQuestion:
        """Whether the best option is the right one; unread if one has no score, or two are equally good."""
        record, options = self.questions[number].record, self.options[number]
        scores: list[Any] = [instance_score([[run[place]] for run in runs]) for place in range(len(options))]
        known = None not in scores
        best = [letter for letter, score in zip(options, scores, strict=True) if known and score == max(scores)]
        right = best == [letter_named(record.mc_answer or "", options)] if len(best) == 1 else None
        own = record.aspect, record.fine_aspect, record.official_rating
        return AnsweredQuestion(self._name(number), record.video_id, "captioning", right, *own)

    def _name(self, number: int) -> str:
        one = self.questions[number]
        return one.record.id or one.where
