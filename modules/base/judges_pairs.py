"""The base of methods whose model judges pairs of answers: how good a judge it is, at every validation and in `test`.

Knows pairs whose better answer is known, a judge and ranks. It does not know what the method learns, nor how a verdict
is made (lm/judging/comparing.py).
"""

from __future__ import annotations

from typing import Any

from lm.backbones.backbone import Backbone
from lm.judging.comparing import Contest, Judged, compare
from lm.judging.label_tokens import label_tokens
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import Judge
from lm.protocols import ComparesPairs
from lm.scoring.model_scores import ModelScores
from lm.steps.gather import merge_over_ranks, ranks
from lm.steps.lightning_private import trainer_of
from metrics.judging.two_orders import TwoOrders, report_by_parts
from modules.base.language_module import LanguageModule
from text.errors import UserError
from text.json_lines import plain

SILENT = Judging(verdicts="constrained", feedback=False, shorten=True)
"""The label alone: one forward, nothing sampled; a question that is too long loses parts of what is judged."""


class JudgesPairs(LanguageModule):
    """A language model that judges pairs, and is measured: ``val/judge/...``, and ``judge/...`` in `test`.

    ``unread`` is the share of the questions without a verdict, which count as ties. The other measures are those of
    `metrics.judging.two_orders.two_orders_report`, and the same of each principle (``judge/principle/<name>/...``) and
    of each ``source`` of the records, where there are several.

    Args:
        backbone: see LanguageModule.
        comparing: how verdicts in both orders become one.
        judged_pairs: so many pairs are judged at a validation, the first ones; 0 judges none.
        max_judge_tokens: tokens that are judged at once.
        method: arguments of the method.

    Attributes:
        results: the measures of `test`, with all their digits.
    """

    def __init__(
        self,
        backbone: Backbone,
        comparing: TwoOrders = TwoOrders(),  # noqa: B008  frozen
        judged_pairs: int = 200,
        max_judge_tokens: int = 16384,
        **method: Any,
    ):
        super().__init__(backbone, **method)
        if judged_pairs < 0 or max_judge_tokens < 1:
            raise UserError(f"model: judged_pairs is {judged_pairs} and max_judge_tokens {max_judge_tokens}")
        self.comparing, self.judged_pairs, self.max_judge_tokens = comparing, judged_pairs, max_judge_tokens
        self.results: dict[str, Any] = {}
        self._contests: dict[str, list[Contest]] = {}

    @property
    def pairs(self) -> ComparesPairs:
        """The data, with its template.

        Raises:
            UserError: if it has none.
        """
        data = getattr(trainer_of(self), "datamodule", None)
        if not isinstance(data, ComparesPairs):
            raise UserError(f"{type(self).__name__} needs pairs to judge: use the data JudgedAnswers or JudgedPrompts")
        return data

    def judge_of(self, scores: ModelScores) -> LanguageJudge:
        """A model as a judge that says a label and nothing else."""
        data = self.pairs
        label_tokens(data.renderer, data.template)  # refused before anything is judged
        # Ranks of a sharded model have to compute equally often: all at once.
        most = self.max_judge_tokens if self.device_mesh is None else 2**62
        return LanguageJudge(scores, data.renderer, data.template, SILENT, most)

    def judges(self) -> dict[str, Judge]:
        """Who is measured, by the name of what is logged; here the model as it is."""
        return {"judge": self.judge_of(ModelScores(self.model, share_prefixes=self.share_prefixes))}

    def measure(self, split: str, judge: Judge, most: int | None = None) -> dict[str, float]:
        """What the judge makes of the pairs of a split, over all ranks; nothing without such pairs."""
        if split not in self._contests:
            self._contests[split] = [*self.pairs.contests(split)] if split in self.pairs.sources else []
        if not (contests := self._contests[split][:most]):
            return {}
        rank, world_size = ranks() if self.device_mesh is None else (0, 1)  # of a sharded model all judge everything
        mine = [*range(rank, len(contests), world_size)]
        with self.trainer.precision_plugin.forward_context():
            found = compare(judge, [contests[number] for number in mine], self.comparing)
        merged: dict[int, Judged] = merge_over_ranks(dict(zip(mine, found, strict=True)))
        gold = [contest.better or 0 for contest in contests]
        parts: dict[str, list[str | None]] = {
            "principle": [contest.criteria[0].name for contest in contests],
            "source": [contest.source for contest in contests],
        }
        report = report_by_parts([merged[number].decided for number in range(len(contests))], gold, parts)
        questions = sum(len(contest.requests()) for contest in contests)
        return report | {"unread": sum(one.unread for one in merged.values()) / questions}

    def on_validation_epoch_end(self) -> None:
        """Log what the judges are worth."""
        super().on_validation_epoch_end()
        if not self.judged_pairs or self.trainer.sanity_checking:
            return
        for name, judge in self.judges().items():
            found = self.measure("val", judge, self.judged_pairs)
            self.log_dict({f"val/{name}/{what}": value for what, value in found.items()}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log what the judges make of all pairs of ``data.test``."""
        super().on_test_epoch_end()
        for name, judge in self.judges().items():
            found = {f"{name}/{what}": value for what, value in self.measure("test", judge).items()}
            self.log_dict(found, sync_dist=True)
            self.results |= plain(found)  # what is logged loses half of the digits
