"""BiGGen Bench (arXiv 2406.05761): a model's answers, scored by evaluators under the rubric of each instance.

`python main.py test --config configs/biggen_bench/mini.yaml`. Knows which answers are judged, and when. It does not
know where instances come from (datamodules/biggen.py), how an evaluator is asked (lm/benches/biggen.py) or how the
report looks (metrics/benches/capability_tables.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lm.backbones.backbone import Backbone
from lm.benches.biggen import CapabilityBench, Grading
from lm.forests.batches import PromptBatch
from lm.generation.decoding import Decoding
from lm.judging.kept_verdicts import kept
from lm.judging.requests import Judge, SharedJudge
from metrics.benches.capability_report import score_figure
from metrics.benches.capability_tables import capability_table, report_text, write_report
from modules.answering import Generation
from modules.base.judged_bench import JudgedBench, Told
from text.errors import UserError


class _Biggen(JudgedBench):
    """``biggen/<capability>``, ``biggen/<capability>/<task>``, ``biggen/overall_macro`` and others."""

    benchmark = "biggen"
    judges: dict[str, Judge]
    grading: Grading

    def tell(self, answers: Mapping[int, Sequence[str]], notes: Sequence[str]) -> Told:
        """What `CapabilityBench` makes of the answers."""
        judges = {name: SharedJudge(judge) for name, judge in self.judges.items()}
        recorded = getattr(self._data, "evaluators", [])
        if not judges and not recorded:
            raise UserError("nobody judges: give model.judges, or data.scores with what evaluators have said already")
        given = [answers.get(row) for row in range(len(self._data.instances))]
        responses = [texts[0] if texts else None for texts in given]
        bench = CapabilityBench(self._data.instances, self.grading)
        report = bench.report(responses, judges, recorded, self._others())
        notes = [*notes, *([] if self.judges else ["The scores are on record; nobody was asked."])]
        if self.judges:
            seen = "sees" if self.grading.show_system_prompt else "does not see"
            notes.append(f"The evaluator {seen} the system prompt; each question was put {self.grading.runs} time(s).")

        def write(folder: Path) -> Path:
            return write_report(report, folder, notes)

        return Told(report.scalars, report_text(report, notes), capability_table(report), score_figure(report), write)

    def _others(self) -> list[dict]:
        return getattr(self._data, "others", [])


class BiggenBench(_Biggen, Generation):
    """Generates answers to all instances, and has them judged.

    Args:
        backbone: the model that answers: a PretrainedBackbone, or a TrainedBackbone with the folder of a run.
        judges: who scores an answer by its rubric, by name; with several, a panel counts and their agreement is told.
        grading: how often, and what ratings come to.
        decoding: how answers are chosen. Officially 2048 tokens, temperature 1, top_p 0.9, penalty 1.03.
        seed: of the draws.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
        kept_answers: folder in which answers and verdicts are kept as they come: a run that was broken off goes on from
            there, to the same report. Null keeps none.
    """

    def __init__(
        self,
        backbone: Backbone,
        judges: dict[str, Judge],
        grading: Grading = Grading(),  # noqa: B008  frozen
        decoding: Decoding = Decoding(),  # noqa: B008  frozen
        seed: int = 0,
        max_batch_tokens: int = 16384,
        kept_answers: str | None = None,
    ):
        super().__init__(backbone, decoding, 1, seed, max_batch_tokens, kept_answers=kept_answers)
        self.judges, self.grading = kept(judges, kept_answers), grading

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Answer some instances."""
        for row, sample in zip(batch.rows, self.predict_step(batch, batch_idx), strict=True):
            self._answers[row] = [sample.text]


class RecordedBiggen(_Biggen):
    """Judges answers that are on record, or sums up scores that are: no model.

    Args:
        judges: who scores an answer by its rubric, by name; null takes the scores of the data alone.
        grading: how often, and what ratings come to.
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

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Take the answers to some instances."""
        if self._data.recorded is None:
            raise UserError("RecordedBiggen needs what is there: give data.responses or data.scores")
        for row in batch.rows:
            self._answers[row] = self._data.recorded[row]
