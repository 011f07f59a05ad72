"""Multifaceted Bench (arXiv 2405.17977, section 4): answers under system messages, judged rubric by rubric.

`python main.py test --config configs/janus/bench.yaml`. Knows which answers are judged, and when. It does not know
where instances come from (datamodules/multifaceted_bench.py), how a judge is asked (lm/benches/multifaceted.py) or how
the report looks (metrics/benches/multifaceted_report.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lm.backbones.backbone import Backbone
from lm.benches.multifaceted import RubricBench, RubricJudging, question
from lm.forests.batches import PromptBatch
from lm.generation.decoding import Decoding
from lm.judging.requests import Judge, SharedJudge
from metrics.benches.multifaceted_report import report_text, score_figure, write_report
from modules.answering import Generation
from modules.base.judged_bench import JudgedBench, Told
from text.errors import UserError


class _Multifaceted(JudgedBench):
    """Judges rubric by rubric: ``bench/score``, ``bench/score/<source>`` and others."""

    judge: Judge
    judging: RubricJudging

    def tell(self, answers: Mapping[int, Sequence[str]], notes: Sequence[str]) -> Told:
        """What `RubricBench` makes of the answers."""
        rows = sorted(answers)
        records = [self._data.instances[row] for row in rows]
        bench = RubricBench(records, self.judging)
        report = bench.report([answers[row] for row in rows], SharedJudge(self.judge))
        text = report_text(report, example := question(records[0].record), notes)

        def write(folder: Path) -> Path:
            return write_report(report, example, folder, notes)

        return Told(report.scalars, text, text, score_figure(report), write, {"bench/valid": report.valid})


class MultifacetedBench(_Multifaceted, Generation):
    """Generates answers to all instances, and has them judged.

    Args:
        backbone: the model that answers: a PretrainedBackbone, or a TrainedBackbone with the folder of a run.
        judge: who scores an answer by a rubric.
        judging: how often, against whom, and what counts as a tie.
        decoding: how answers are chosen. The paper draws: 1024 tokens, temperature 1, top_p 0.9, penalty 1.03.
        samples: answers to each instance; the first is scored, all of them make the best-of-N curve.
        seed: of the draws.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
        kept_answers: folder in which answers are kept as they come; see Generation.
    """

    def __init__(
        self,
        backbone: Backbone,
        judge: Judge,
        judging: RubricJudging = RubricJudging(),  # noqa: B008  frozen
        decoding: Decoding = Decoding(),  # noqa: B008  frozen
        samples: int = 1,
        seed: int = 0,
        max_batch_tokens: int = 16384,
        kept_answers: str | None = None,
    ):
        super().__init__(backbone, decoding, samples, seed, max_batch_tokens, kept_answers=kept_answers)
        self.judge, self.judging = judge, judging

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Answer some instances."""
        texts = [sample.text for sample in self.predict_step(batch, batch_idx)]
        for place, row in enumerate(batch.rows):
            self._answers[row] = texts[place * self.samples : (place + 1) * self.samples]


class RecordedBench(_Multifaceted):
    """Judges answers that are on record: no model, only a judge.

    Args:
        judge: who scores an answer by a rubric.
        judging: how often, against whom, and what counts as a tie.
    """

    def __init__(self, judge: Judge, judging: RubricJudging = RubricJudging()):  # noqa: B008  frozen
        super().__init__()
        self.judge, self.judging = judge, judging

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Take the answers to some instances."""
        if self._data.recorded is None:
            raise UserError("RecordedBench judges what is there: give data.responses, the file of a run of predict")
        for row in batch.rows:
            self._answers[row] = self._data.recorded[row]
