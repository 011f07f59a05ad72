"""What a model says to questions about videos, scored as it comes: in order, and as controls show the frames.

This file knows answers, ranks and files. It does not know how they were written (modules/pegasus/pegasus.py), nor when
one is right (text/video/choices.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import Trainer

from lm.generation.decoding import Sample
from lm.steps.gather import merge_over_ranks
from lm.vision.batch import VideoPromptBatch
from metrics.video.answers import answers_report
from metrics.video.choices import AnsweredQuestion
from text.errors import UserError
from text.video.asked import last_words
from text.video.choices import form_of, is_right

FOLDER = "answers"


class ScoredAnswers:
    """The answers of a test, by the order in which frames were shown and the number of the question."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, int], tuple[AnsweredQuestion, str]] = {}

    def take(self, batch: VideoPromptBatch, samples: Sequence[Sample]) -> None:
        """The answers to some questions, one to each.

        Raises:
            UserError: for several answers to a question.
        """
        if len(samples) != len(batch):
            each = len(samples) // max(1, len(batch))
            raise UserError(f"model.samples is {each}: `test` scores one answer to each question")
        for row, name, record, sample in zip(batch.rows, batch.ids, batch.records, samples, strict=True):
            asked, answer = last_words(record["prompt"]), record["answer"]
            form = form_of(asked, answer)
            right = is_right(form, sample.text, answer, asked)
            video = record["video"]
            about = name.partition("#")[0] if video is None else " ".join([video] if isinstance(video, str) else video)
            answered = AnsweredQuestion(name, about, form, right, record.get("type"))
            self._said[batch.frame_order, row] = answered, sample.text

    def report(self, trainer: Trainer, order: str, seed: int) -> dict[str, float]:
        """Scores over all questions of all ranks, by name; files and screen tell more. Nothing without answers.

        Questions whose video could not be shown in one of the orders are left out of all; ``skipped`` counts records.

        Args:
            trainer: whose run folder is written into.
            order: the one that is no control.
            seed: of bootstraps.
        """
        merged = merge_over_ranks(self._said)
        log_dir = trainer.log_dir  # agreed between ranks: every rank has to ask
        if not merged:
            return {}
        orders = [order, *sorted({other for other, _ in merged} - {order})]
        rows = [row for row in sorted({row for _, row in merged}) if all((one, row) in merged for one in orders)]
        if not rows:
            raise UserError("no question was answered with frames in every order: nothing to score")
        given = {one: [merged[one, row][0] for row in rows] for one in orders}
        said = [merged[order, row][1] for row in rows]
        told = answers_report(given.pop(order), said, given, seed)
        skipped = merge_over_ranks(dict(getattr(trainer.datamodule, "skipped", {})))  # type: ignore[attr-defined]
        if skipped:
            why = "their video cannot be shown (skipped.jsonl)"
            told = replace(told, text=f"{told.text}\n\n{len(skipped):,} records are left out: {why}.")
        if trainer.is_global_zero:
            print(told.text)
            if log_dir is not None:
                print(f"Report: {told.write(Path(log_dir) / FOLDER)}")
        return told.scalars | {"skipped": float(len(skipped))}
