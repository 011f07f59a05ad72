"""SuRe: open-domain questions answered by summarised retrieval (arXiv 2404.13081); nothing is trained.

`test` scores and reports, `predict` writes a record of every question and tasks to train on. What is asked when is in
modules/sure/course.py. This file does not know prompts (text/qa/prompts.py), nor how passages were found
(datamodules/questions.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lm.backbones.backbone import Backbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName
from lm.generation.decoding import Decoding
from lm.generation.rounds import Course
from lm.judging import Judge
from lm.retrieval import DenseRetriever
from lm.steps.gather import merge_over_ranks
from lm.tokens.prompt_styles import StyledRenderer
from metrics.qa.decisions import right, sure_scores
from metrics.qa.report import tell
from modules.base.rounds_module import RoundsModule
from modules.sure.asking import Asking
from modules.sure.comparing import nearest_by, preferred_rationales
from modules.sure.course import QuestionCourse
from modules.sure.pipeline import Pipeline
from text.errors import UserError
from text.json_lines import plain
from text.qa.qa_records import QAQuestion
from text.qa.sure_records import SuReRecord
from text.records import Record


class SuRe(RoundsModule):
    """Answers questions of a `Questions` datamodule.

    Args:
        backbone: the model that answers; frozen.
        pipeline: how questions are answered.
        rerank: an encoder; with it each question is also answered from the one passage that is nearest to the question,
            to a generic summary and to SuRe's (section 4.4 of the paper, as its code does it).
        preference: a judge; with it SuRe's summaries are compared with generic ones, where both lead to right answers.
        decoding: how answers are drawn, where candidates are (``pipeline.candidates``); all else is greedy.
        seed: see RoundsModule.
        max_batch_tokens: see RoundsModule. A question's passages are computed once if half of it has room for them.
        engine: see RoundsModule.

    Attributes:
        results: the scores, as metrics.json holds them.
    """

    def __init__(
        self,
        backbone: Backbone,
        pipeline: Pipeline = Pipeline(),  # noqa: B008  frozen
        rerank: DenseRetriever | None = None,
        preference: Judge | None = None,
        decoding: Decoding = Decoding(temperature=0.7),  # noqa: B008  frozen
        seed: int = 42,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
    ):
        super().__init__(backbone, decoding, seed, max_batch_tokens, engine)
        if pipeline.candidates != "prompt" and decoding.temperature == 0:
            raise UserError(
                f"SuRe: 'candidates: {pipeline.candidates}' draws answers: give decoding.temperature above 0"
            )
        self.pipeline, self.rerank, self.preference = pipeline, rerank, preference

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @cached_property
    def styled(self) -> StyledRenderer:
        """Makes tokens of prompts, in the words of the data."""
        styled: StyledRenderer = self._data.styled
        if styled.prompts.style == "few_shot" and self.pipeline.candidates == "prompt" and self.pipeline.k > 2:
            raise UserError(
                f"SuRe: 'k' is {self.pipeline.k}, and few-shot demonstrations propose two candidates: set "
                "pipeline.candidates to sampled or likeliest, or k to 2"
            )
        return styled

    def course(self, prompt: list[int], id: str, asked: dict[str, Any]) -> Course[SuReRecord]:
        """The course of a question."""
        question: QAQuestion = asked["question"]
        ask = Asking(self.pipeline, self.styled, self.engine.context, self.decoding, self.seed)
        nearest = None if self.rerank is None else nearest_by(self.rerank)
        return QuestionCourse(ask, question, id, self.preference is not None, nearest).run()

    # --- predict ------------------------------------------------------------------------------------------------------

    def files(self, results: Sequence[SuReRecord]) -> tuple[dict[str, Sequence[Record]], dict[str, Any]]:
        """answers.jsonl, a record of each question; tasks.jsonl, to train a model on, of those with right answers."""
        known = [record for record in results if record.answers]
        tasks = [task for record in known for task in record.tasks(right(record))]
        counts: dict[str, Any] = {"sure/questions": len(results), "sure/tasks": len(tasks)}
        return {"answers": results, "tasks": tasks}, counts | plain(sure_scores(known) if known else {})

    # --- test ---------------------------------------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Nothing is answered yet; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False  # type: ignore[attr-defined]
        self._answered: dict[int, SuReRecord] = {}

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Answer some questions."""
        self._answered |= zip(batch.rows, self.run(batch), strict=True)

    def on_test_epoch_end(self) -> None:
        """Score the questions of all ranks, log ``em`` and the others, and report."""
        merged = merge_over_ranks(self._answered)
        records = [merged[row] for row in sorted(merged)]
        scores = sure_scores(records)
        preferences = preferred_rationales(records, self.preference) if self.preference else None
        if preferences is not None:
            scores |= preferences.shares
        self.results = plain(scores)
        self.log_dict({name: scores[name] for name in ("em", "f1", "em_base", "f1_base")}, rank_zero_only=True)
        log_dir = self.trainer.log_dir  # type: ignore[attr-defined]  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero:  # type: ignore[attr-defined]
            verdicts = preferences.verdicts if preferences else None
            tell(records, scores, None if log_dir is None else Path(log_dir), verdicts)
