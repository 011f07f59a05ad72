"""Evaluators against humans on answers of BiGGen Bench (arXiv 2406.05761, section 4): the meta-evaluation.

`python main.py test --config configs/biggen_bench/meta_eval.yaml`. Reads what evaluators of the past have said and asks
those of the present. No model that answers. It does not know where rows come from (datamodules/biggen_results.py) or
how agreement is measured (metrics/judging/meta_evaluation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger

from lm.benches.biggen import Grading
from lm.benches.rubric_questions import put_questions
from lm.judging.kept_verdicts import kept
from lm.judging.requests import Judge, JudgeRequest, SharedJudge
from metrics.benches.capability import self_consistent
from metrics.benches.capability_report import PANEL
from metrics.judging.meta_evaluation import MetaEvaluation, Rating, agreement_figure, meta_evaluation, report_text
from metrics.report_files import write_figure, write_lines
from text.errors import UserError
from text.json_lines import plain
from text.judging.biggen_results import HUMAN, ResultRecord
from text.whole_files import write_text

Scores = dict[str, list[float | None]]


class JudgeAgreement(LightningModule):
    """Correlations of evaluators with a human, by capability: ``agreement/<evaluator>/<capability>/pearson``.

    Several evaluators are a panel too.

    Args:
        judges: evaluators to ask, by name, beside those whose scores are on record.
        grading: how often they are asked, and what ratings come to.
        kept_verdicts: folder in which verdicts are kept as they come; see BiggenBench.
    """

    def __init__(
        self,
        judges: dict[str, Judge] | None = None,
        grading: Grading = Grading(),  # noqa: B008  frozen
        kept_verdicts: str | None = None,
    ):
        super().__init__()
        self.judges, self.grading = kept(judges or {}, kept_verdicts), grading

    def on_test_start(self) -> None:
        """The report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.results: dict[str, Any] = {}

    def test_step(self, batch: Sequence[ResultRecord], batch_idx: int) -> None:
        """Nothing: all rows are judged together at the end."""

    def on_test_epoch_end(self) -> None:
        """Ask, compare, report."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        scores = {name: [self._settled(row.ratings(name)) for row in data.rows] for name in data.judges}
        for name, judge in self.judges.items():
            if name in scores or name in (HUMAN, PANEL):
                raise UserError(f"model.judges: '{name}' is the name of another evaluator: call this one otherwise")
            scores[name] = self._ask(judge, data.rows, data.rubrics)
        if not scores:
            raise UserError("no evaluator: the results have no column <name>_score, and model.judges names nobody")
        found, rows = self._compare(data.rows, scores, data.unseen_only)
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero:
            self._tell(found, rows, log_dir)

    def _settled(self, ratings: Sequence[float | None]) -> float | None:
        return self_consistent(ratings, self.grading.self_consistency)

    def _ask(self, judge: Judge, rows: Sequence[ResultRecord], rubrics: Sequence[Any]) -> list[float | None]:
        def question(number: int, response: str) -> list[JudgeRequest]:
            row, rubric = rows[number], rubrics[number]
            if rubric is None:
                raise UserError(f"'{row.instance}' has no rubric to judge by: give score_rubric, or data.rubrics")
            asked = self.grading.instruction(row.system_prompt, row.input)
            name = f"{row.model_name}/{row.instance}"
            return [JudgeRequest(name, asked, (response,), rubric, row.reference_answer)]

        judged = put_questions(SharedJudge(judge), [row.response or "" for row in rows], question, self.grading)
        return [self._settled([run[0] for run in runs]) for runs in judged.scores]

    def _compare(
        self, rows: Sequence[ResultRecord], scores: Scores, unseen_only: Sequence[str]
    ) -> tuple[MetaEvaluation, list[dict[str, Any]]]:
        if len(scores) > 1:
            together = zip(*scores.values(), strict=True)
            scores = scores | {PANEL: [self_consistent(given, self.grading.panel) for given in together]}
        ratings = []
        for number, row in enumerate(rows):
            counts = [name for name in scores if not (row.used_for_training and name in (*unseen_only, PANEL))]
            given = {name: scores[name][number] for name in counts}
            ratings.append(Rating(row.model_name, row.capability, row.task, row.human, given))
        lines = [
            {"id": row.instance, "model_name": row.model_name, "capability": row.capability, "task": row.task}
            | {"human": rating.human, "scores": dict(rating.judges)}
            for row, rating in zip(rows, ratings, strict=True)
        ]
        return meta_evaluation(ratings, list(scores), HUMAN), lines

    def _tell(self, found: MetaEvaluation, rows: list[dict[str, Any]], log_dir: str | None) -> None:
        self.log_dict(found.scalars, rank_zero_only=True)
        self.results = plain(found.scalars)  # what is logged loses half of the digits
        text, figure = report_text(found), agreement_figure(found)
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("agreement", text, self.trainer.global_step)
                logger.experiment.add_figure("agreement", figure, self.trainer.global_step)
        print(text)
        if log_dir is None:
            return
        folder = Path(log_dir) / "agreement"
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(folder / "answers.jsonl", rows)
        write_figure(folder / "agreement.png", figure)
        write_text(folder / "report.md", text)
        print(f"Report: {folder / 'report.md'}")

    def configure_optimizers(self) -> Any:
        """There is nothing to train."""
        raise UserError("JudgeAgreement has nothing to train: use `test`")
