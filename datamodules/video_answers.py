"""Answers about videos that are on record, and verdicts about their facts: read, joined with what is right, measured.

Knows records and which prediction belongs to which question. It does not know who answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.records import Source, name_of, read_records
from lm.files.hyperparameters import PlainHyperparameters
from metrics.video.answers import answers_report
from metrics.video.choices import AnsweredQuestion
from metrics.video.facts import Reading, Verdicts, fact_gains, fact_report
from metrics.video.report import VideoReport
from metrics.video.temporal_gain import gains_text
from text.errors import DataFormatError, UserError
from text.video.answer_records import FactVerdicts, PredictionRecord, QuestionRecord
from text.video.choices import Form, form_of, is_right, why_unreadable


class _Recorded(PlainHyperparameters, LightningDataModule):
    """Something on record that is measured whole."""

    def report(self) -> VideoReport:
        """What it comes to."""
        raise NotImplementedError

    def test_dataloader(self) -> DataLoader:
        """One batch, of nothing: all is measured at the end."""
        return DataLoader([0])  # type: ignore[arg-type]


class VideoAnswers(_Recorded):
    """Questions about videos with predictions on record (`text.video.answer_records`).

    Files of TempCompass are read as they are, and what `predict` writes (``responses.jsonl``).

    Args:
        test: questions with right answers.
        predictions: what was said to them; null where they stand with the questions. A question without a prediction
            is answered wrongly, and a prediction without a question is refused.
        form: of the questions; ``auto`` tells it from each question.
        controls: predictions of the same questions with frames in another order, by name: what order is worth.
        seed: of bootstraps.
    """

    def __init__(
        self,
        test: Source,
        predictions: Source | None = None,
        form: Form | Literal["auto"] = "auto",
        controls: dict[str, str] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.test, self.predictions, self.form, self.controls, self.seed = test, predictions, form, controls or {}, seed

    def setup(self, stage: str) -> None:
        """Reads and joins."""
        self.questions = read_records(self.test, QuestionRecord, "test")
        if self.predictions is None:
            self.said = [one.record.prediction for one in self.questions]
        else:
            self.said = self._joined(self.predictions)
        self.of_controls = {name: self._joined(source) for name, source in self.controls.items()}

    def _require_readable(self) -> None:
        wrong = [
            (one.where, why_unreadable(self._form(one.record), one.record.answer, one.record.question))
            for one in self.questions
        ]
        problems = [
            f"{where}: field 'answer': {why}, or give another data.form" for where, why in wrong if why is not None
        ]
        if problems:
            raise DataFormatError(problems)

    def _form(self, q: QuestionRecord) -> Form:
        return form_of(q.question, q.answer) if self.form == "auto" else self.form

    def report(self) -> VideoReport:
        """Accuracies, and gains over controls.

        Raises:
            DataFormatError: for right answers that no prediction could equal.
            UserError: for captions, which nobody but a judge can read.
        """
        if any(one.record.mc_question is not None for one in self.questions):
            raise UserError(
                f"{name_of(self.test)} has captions ('mc_question'), which a judge has to read: use JudgedVideoBench "
                "(configs/pegasus/video_chat.yaml)"
            )
        self._require_readable()
        controls = {name: self._answered(said) for name, said in self.of_controls.items()}
        return answers_report(self._answered(self.said), self.said, controls, self.seed)

    def _answered(self, said: Sequence[str | None]) -> list[AnsweredQuestion]:
        made = []
        for one, prediction in zip(self.questions, said, strict=True):
            q = one.record
            form = self._form(q)
            right = is_right(form, prediction, q.answer, q.question)
            name = q.id or one.where
            made.append(AnsweredQuestion(name, q.video_id, form, right, q.aspect, q.fine_aspect, q.official_rating))
        return made

    def _joined(self, source: Source) -> list[str | None]:
        """The prediction for each question; the second answer to the same words is for the second such question."""
        of_key: dict[tuple[str, ...], list[int]] = {}
        for number, one in enumerate(self.questions):
            for key in _keys(one.record):
                of_key.setdefault(key, []).append(number)
        found: list[str | None] = [None] * len(self.questions)
        problems, answered = [], set[int]()
        for said in read_records(source, PredictionRecord, "predictions"):
            asked = next((of_key[key] for key in _keys(said.record) if key in of_key), [])
            number = next((number for number in asked if number not in answered), -1)
            if not asked:
                problems.append(f"{said.where}: no question of {name_of(self.test)} is answered by this prediction")
            elif number < 0:
                problems.append(f"{said.where}: the question is answered already by another prediction")
            else:
                found[number] = said.record.prediction
                answered.add(number)
        if problems:
            raise DataFormatError(problems)
        return found


def _keys(record: QuestionRecord | PredictionRecord) -> list[tuple[str, ...]]:
    """What joins a question and a prediction: the id, if it has one; and video and question, whether it has or not."""
    return [*dict.fromkeys([record.key, (record.video_id or "", record.question or "")])]


class VideoFacts(_Recorded):
    """Verdicts about the facts of summaries (`text.video.answer_records.FactVerdicts`).

    Args:
        test: one record a video.
        reading: see `metrics.video.facts.fact_report`.
        controls: verdicts about summaries of the same videos with frames in another order, by name: what order is
            worth.
        seed: of bootstraps.
    """

    def __init__(
        self, test: Source, reading: Reading = "official", controls: dict[str, str] | None = None, seed: int = 0
    ):
        super().__init__()
        self.test, self.reading, self.controls, self.seed = test, reading, controls or {}, seed

    def setup(self, stage: str) -> None:
        """Reads."""
        self.verdicts = _verdicts(self.test)
        self.of_controls = {name: _verdicts(source) for name, source in self.controls.items()}
        videos = sorted(one.video for one in self.verdicts)
        for name, others in self.of_controls.items():
            if sorted(one.video for one in others) != videos:
                raise UserError(f"data.controls: '{name}' ({self.controls[name]}) is not about the videos of data.test")

    def report(self) -> VideoReport:
        """Precision, recall and F1, and gains over controls."""
        found = fact_report(self.verdicts, self.reading, self.seed)
        gains = fact_gains(self.verdicts, self.of_controls, self.reading, self.seed)
        scalars = found.scalars | {f"gain/{name}": gain["value"] for name, gain in gains.items()}
        text = f"{found.text}\n\n{gains_text(gains, 'Scores')}" if gains else found.text
        rows: list[dict[str, Any]] = [verdicts._asdict() for verdicts in self.verdicts]
        return VideoReport(scalars, text, rows)


def _verdicts(source: Source) -> list[Verdicts]:
    """The verdicts of a file, one a video.

    Raises:
        DataFormatError: for a second line about a video.
        UserError: if all videos would be left out.
    """
    found, at, problems = read_records(source, FactVerdicts, "test"), dict[str, str](), list[str]()
    for one in found:
        if (first := at.setdefault(one.record.video_id, one.where)) != one.where:
            problems.append(f"{one.where}: video '{one.record.video_id}' has verdicts already, at {first}")
    if problems:
        raise DataFormatError(problems)
    if not any(one.record.recall_verdicts for one in found):
        raise UserError(f"{name_of(source)}: no video has a fact of its reference: nothing can be scored")
    return [Verdicts(one.video_id, one.precision_verdicts, one.recall_verdicts) for one in (o.record for o in found)]
