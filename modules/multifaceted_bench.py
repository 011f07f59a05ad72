"""Multifaceted Bench (arXiv 2405.17977, section 4): answers under system messages, judged rubric by rubric.

`python main.py test --config configs/janus/bench.yaml`. Knows which answers are judged, and when. It does not know
where instances come from (datamodules/multifaceted_bench.py), how a judge is asked (lm/rubric_bench.py) or how the
report looks (metrics/multifaceted_report.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule

from lm.backbone import Backbone
from lm.batches import PromptBatch
from lm.generation import Decoding
from lm.judging import Judge
from lm.protocols import HasInstances
from lm.rubric_bench import Judging, RubricBench, question
from metrics.multifaceted_report import report_text, write_report
from metrics.retrieval_report import plain
from modules.generation import Generation
from text.errors import UserError


class _Judged(LightningModule):
    """Judges answers at the end of a test, wherever they come from."""

    judge: Judge
    judging: Judging

    def on_test_start(self) -> None:
        """Nothing is answered yet; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.results: dict[str, Any] = {}
        self._answers: dict[int, Sequence[str]] = {}
        if not isinstance(self._data, HasInstances):
            raise UserError(f"{type(self).__name__} needs instances with rubrics: use MultifacetedPrompts")

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_test_epoch_end(self) -> None:
        """Judge the answers of all ranks, report and log: ``bench/score``, ``bench/score/<source>`` and others."""
        parts: list[Any] = [self._answers]
        if self.trainer.world_size > 1:
            dist.all_gather_object(parts := [None] * self.trainer.world_size, self._answers)
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if not self.trainer.is_global_zero:
            return
        answers = {row: texts for part in parts for row, texts in part.items()}
        records = self._data.instances
        report = RubricBench(records, self.judging).report([answers[row] for row in range(len(records))], self.judge)
        scalars = {f"bench/{name}": value for name, value in report.scalars.items()}
        self.log_dict(scalars, rank_zero_only=True)
        self.results = plain(scalars) | {"bench/valid": report.valid}  # what is logged loses half of the digits
        example = question(records[0].record)
        print(report_text(report, example))
        if log_dir is not None:
            print(f"Report: {write_report(report, example, Path(log_dir) / 'bench')}")


class MultifacetedBench(_Judged, Generation):
    """Generates answers to all instances, and has them judged.

    Args:
        backbone: the model that answers: a PretrainedBackbone, or a TrainedBackbone with the folder of a run.
        judge: who scores an answer by a rubric.
        judging: how often, against whom, and what counts as a tie.
        decoding: how answers are chosen. The paper draws: 1024 tokens, temperature 1, top_p 0.9, penalty 1.03.
        samples: answers to each instance; the first is scored, all of them make the best-of-N curve.
        seed: of the draws.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        judge: Judge,
        judging: Judging = Judging(),  # noqa: B008  frozen
        decoding: Decoding = Decoding(),  # noqa: B008  frozen
        samples: int = 1,
        seed: int = 0,
        max_batch_tokens: int = 16384,
    ):
        super().__init__(backbone, decoding, samples, seed, max_batch_tokens)
        self.judge, self.judging = judge, judging

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Answer some instances."""
        texts = [sample.text for sample in self.predict_step(batch, batch_idx)]
        for place, row in enumerate(batch.rows):
            self._answers[row] = texts[place * self.samples : (place + 1) * self.samples]


class RecordedBench(_Judged):
    """Judges answers that are on record: no model, only a judge.

    Args:
        judge: who scores an answer by a rubric.
        judging: how often, against whom, and what counts as a tie.
    """

    def __init__(self, judge: Judge, judging: Judging = Judging()):  # noqa: B008  frozen
        super().__init__()
        self.judge, self.judging = judge, judging

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Take the answers to some instances."""
        if self._data.recorded is None:
            raise UserError("RecordedBench judges what is there: give data.responses, the file of a run of predict")
        for row in batch.rows:
            self._answers[row] = self._data.recorded[row]

    def configure_optimizers(self) -> None:
        """There is nothing to train."""
        raise UserError("RecordedBench has nothing to train: use `test`")
