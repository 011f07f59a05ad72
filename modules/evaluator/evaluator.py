"""Evaluator LMs (Prometheus 2, arXiv 2405.01535): one model that scores responses, compares them, and says why.

It is trained to write feedback and a verdict (`fit`), judges (`predict`), and is measured against others' verdicts
(`test`). This file does not know in what words a judge is asked (text/judging/judge_prompts.py), how records became
tokens (datamodules/judgments.py), how a verdict is read (lm/judging/language_judge.py) or what verdicts come to
(metrics/judging/judge_report.py).

Legend: K scored tokens of all answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lm.backbones.backbone import Backbone
from lm.forests.batches import JudgmentBatch
from lm.judging.judge_by_name import note_template, warn_of_template
from lm.judging.kept_verdicts import CachedJudge
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import Judge, JudgeRequest, Verdict
from lm.protocols import HasJudgments
from lm.scoring.model_scores import ModelScores
from lm.steps.gather import merge_over_ranks
from lm.steps.lightning_private import trainer_of
from metrics.judging.judge_report import JudgedRecord, judge_report, report_text, write_report
from modules.base.language_module import LanguageModule
from text.errors import UserError
from text.json_lines import plain
from text.judging.judgments import Judgment
from text.records import Located
from text.suggestions import did_you_mean


class EvaluatorLM(LanguageModule):
    r"""A generative judge.

    With answers :math:`y_i` (feedback, the marker ``[RESULT]``, the verdict, the end) to questions :math:`x_i`, the
    loss is the mean over all answer tokens of a global batch, in which verdicts can weigh more:

    .. math:: L = -\frac{1}{\sum_{i,t} w_{i,t}} \sum_{i,t} w_{i,t} \log p_\theta(y_{i,t} \mid x_i, y_{i,<t}).

    Logged: ``loss`` (the mean over all tokens), ``feedback_loss`` (tokens before the marker), ``verdict_loss``.

    Args:
        backbone: the model to train, or the judge.
        verdict_weight: w of a verdict's tokens; of all others it is 1, and of all in the paper.
        judging: how the judge comes to its verdicts in `predict` and `test`.
        runs: how often a question is put in `test` and `predict`; the paper scores three times, and takes the mean.
        both_orders: put pairs in both orders.
        group_by: field of the records by which `test` reports parts.
        kept_verdicts: folder of verdicts that were given before: a run that is broken off goes on there.
        max_batch_tokens: tokens that the judge holds at once.
        optimizer: see BackboneModule.
        lr_scheduler: see BackboneModule.
        share_prefixes: see LanguageModule.
    """

    def __init__(
        self,
        backbone: Backbone,
        verdict_weight: float = 1.0,
        judging: Judging = Judging(),  # noqa: B008  frozen
        runs: int = 1,
        both_orders: bool = True,
        group_by: str | None = None,
        kept_verdicts: str | None = None,
        max_batch_tokens: int = 16384,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-5, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
    ):
        super().__init__(backbone, optimizer, lr_scheduler, share_prefixes)
        if verdict_weight <= 0 or runs < 1:
            raise UserError(f"model: verdict_weight is {verdict_weight} and runs {runs}; above 0, and 1 or more")
        self.verdict_weight, self.judging, self.runs, self.both_orders = verdict_weight, judging, runs, both_orders
        self.group_by, self.kept_verdicts, self.max_batch_tokens = group_by, kept_verdicts, max_batch_tokens

    # --- training ---------------------------------------------------------------------------------------------------

    def prepare_model(self, model: nn.Module) -> None:
        """Note in which words it learns to judge, or tell that it learnt in others."""
        data = self._data
        if data is not None:
            warn_of_template(model, data.template)
            note_template(model, data.template)

    def training_step(self, batch: JudgmentBatch, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, whatever its split into micro-batches and ranks."""
        losses_K = self._losses(batch, "train")
        if self.verdict_weight == 1.0:
            return self.global_mean(losses_K)
        weights_K = torch.where(batch.verdict, self.verdict_weight, 1.0)
        return self.global_mean(losses_K, weights_K)

    def validation_step(self, batch: JudgmentBatch, batch_idx: int) -> None:
        """``val/loss``, ``val/feedback_loss``, ``val/verdict_loss``: means over held-out answers, nats per token."""
        self.log_for("val", "loss", self._losses(batch, "val"))

    def _losses(self, batch: JudgmentBatch, split: Literal["train", "val"]) -> Tensor:
        losses_K = -self.forest_logprobs(batch.forest)[batch.forest.path_targets]
        self.log_for(split, "feedback_loss", losses_K, batch.feedback.float())
        self.log_for(split, "verdict_loss", losses_K, batch.verdict.float())
        return losses_K

    # --- judging ----------------------------------------------------------------------------------------------------

    @property
    def _data(self) -> Any:
        return getattr(trainer_of(self), "datamodule", None)

    def _begin(self) -> None:
        if not isinstance(self._data, HasJudgments):
            raise UserError("EvaluatorLM judges records: use the data Judgments")
        if self.device_mesh is not None:
            raise UserError(
                "EvaluatorLM: a sharded model does not judge: ranks would ask it unequally often, and wait for one "
                "another for ever. Use --trainer.strategy ddp, or auto"
            )
        self._groups = [_group(one, self.group_by) for one in self._data.judgments]  # refused before judging, not after
        self._found: dict[int, list[dict[str, Any]]] = {}
        judge = LanguageJudge(
            ModelScores(self.model, share_prefixes=self.share_prefixes),
            self._data.renderer,
            self._data.template,
            replace(self.judging, use_reference=self.judging.use_reference and self._data.use_reference),
            self.max_batch_tokens,
        )
        self._judge: Judge = judge if self.kept_verdicts is None else CachedJudge(judge, self.kept_verdicts)

    def on_test_start(self) -> None:
        """Nothing is judged yet; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.results: dict[str, Any] = {}
        self._begin()

    def on_predict_start(self) -> None:
        """Nothing is judged yet."""
        self._begin()

    def test_step(self, batch: list[int], batch_idx: int) -> None:
        """Judge some records."""
        self.predict_step(batch, batch_idx)

    def predict_step(self, batch: list[int], batch_idx: int) -> None:
        """Judge some records, as often and in as many orders as asked for."""
        records = [self._data.judgments[row] for row in batch]
        asked = [(row, *one) for row, found in zip(batch, records, strict=True) for one in self._questions(found)]
        verdicts = self._judge.judge([request for _, _, request in asked])
        for (row, swapped, request), verdict in zip(asked, verdicts, strict=True):
            self._found.setdefault(row, []).append(_line(request.id, swapped, verdict))

    def _questions(self, found: Located[Judgment]) -> list[tuple[bool, JudgeRequest]]:
        """The questions about a record: runs, and orders of its responses."""
        record = found.record
        orders = [False, True] if self.both_orders and record.format == "pairwise" else [False]
        answers = {False: tuple(record.responses), True: tuple(record.responses[::-1])}

        def request(swapped: bool, run: int) -> JudgeRequest:
            shown = record.instruction, answers[swapped], record.rubric, record.reference_answer
            return JudgeRequest(found.name, *shown, run)

        return [(swapped, request(swapped, run)) for swapped in orders for run in range(self.runs)]

    def on_predict_epoch_end(self) -> None:
        """Write ``verdicts.jsonl``."""
        self._finish("predict")

    def on_test_epoch_end(self) -> None:
        """Compare with the records' own verdicts: log, print, and write ``report.md`` and ``verdicts.jsonl``."""
        self._finish("test")

    def _finish(self, verb: Literal["predict", "test"]) -> None:
        found = merge_over_ranks(self._found)
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if not self.trainer.is_global_zero:
            return
        judged = [
            JudgedRecord(one.name, one.record, found[row], self._groups[row])
            for row, one in enumerate(self._data.judgments)
            if row in found
        ]
        report = judge_report(judged)
        if verb == "test":
            self.log_dict(report.scalars, rank_zero_only=True)
            self.results = plain(report.scalars)  # what is logged loses half of the digits
        print(report_text(report))
        if log_dir is not None:
            print(f"Verdicts: {write_report(report, judged, Path(log_dir))}")


def _line(id: str, swapped: bool, verdict: Verdict) -> dict[str, Any]:
    """A verdict as it is written; the preference as the record has its responses, not as they were shown."""
    preference = (
        {"A": "B", "B": "A"}.get(verdict.preference or "", verdict.preference) if swapped else verdict.preference
    )
    return {
        "swapped": swapped,
        "score": verdict.score,
        "preference": preference,
        "probabilities": list(verdict.probabilities),
        "feedback": verdict.feedback,
        "reason": verdict.reason,
        "parsed": verdict.parsed,
        "attempts": verdict.attempts,
    }


def _group(found: Located[Judgment], name: str | None) -> str | None:
    """The part of the test that a record belongs to."""
    if name is None:
        return None
    fields = found.record.model_extra or {}
    if (value := fields.get(name)) is None:
        hint = did_you_mean(name, fields) or " Give a field of all records, or null for a report as a whole"
        raise UserError(f"{found.where}: no field '{name}', which model.group_by asks for.{hint}")
    return str(value)
