"""Answers about videos, judged axis by axis (arXiv 2306.05424): the house's judges in place of GPT-3.5.

`python main.py test --config configs/pegasus/video_chat.yaml`. Knows who judges, and when. It does not know what is
asked of a judge (lm/benches/video_axes.py, caption_choices.py), nor who answered (datamodules/video_answers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm.benches.caption_choices import CaptionBench
from lm.benches.rubric_questions import Asking
from lm.benches.video_axes import AxesBench
from lm.judging.kept_verdicts import kept
from lm.judging.requests import Judge, SharedJudge
from metrics.video.report import VideoReport
from modules.pegasus.recorded_video_bench import RecordedVideoBench
from text.errors import UserError
from text.video.axes import TEMPORAL


class JudgedVideoBench(RecordedVideoBench):
    """Has answers on record judged: ``video_chat/correctness``, ``detail``, ``context``, ``temporal``, ``consistency``.

    Captions of TempCompass (with ``mc_question``) are judged by the choices that they speak for, in percent:
    ``video_chat/average``, ``aspect/<aspect>`` and others.

    Args:
        judge: who scores an answer by a rubric.
        judging: how often, and what about empty answers.
        temporal: kinds of questions about time, judged by that alone. Kind ``consistency`` is judged in pairs, the
            second of which ``rephrases`` the first; ``summary`` is reported by itself.
        kept_verdicts: folder in which verdicts are kept as they come: a run that was broken off goes on.
        name: what scalars are called after.
    """

    def __init__(
        self,
        judge: Judge,
        judging: Asking = Asking(),  # noqa: B008  frozen
        temporal: Sequence[str] = TEMPORAL,
        kept_verdicts: str | None = None,
        name: str = "video_chat",
    ):
        super().__init__(name)
        (self.judge,) = kept({"judge": judge}, kept_verdicts).values()
        self.judging, self.temporal = judging, tuple(temporal)

    def tell(self, data: Any) -> VideoReport:
        """Ask the judge about all answers; every rank asks about its share."""
        if not hasattr(data, "of_controls"):
            raise UserError("JudgedVideoBench has answers to questions judged: use VideoAnswers")
        captions = [one.record.mc_question is not None for one in data.questions]
        if any(captions) and not all(captions):
            lacking = data.questions[captions.index(False)].where
            raise UserError(
                f"{lacking}: no 'mc_question', which others of its file have: give captions a file of their own"
            )
        bench: AxesBench | CaptionBench
        if any(captions):
            bench = CaptionBench(data.questions, self.judging)
        else:
            bench = AxesBench(data.questions, self.temporal, self.judging)
        return bench.report(data.said, SharedJudge(self.judge), data.of_controls, data.seed)
