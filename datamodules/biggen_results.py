"""Published results of BiGGen Bench, or results of one's own in the same columns: answers, scored by humans and judges.

Knows records and which rows count. It does not know how agreement is measured, nor who is asked anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import LightningDataModule
from pydantic import ConfigDict, ValidationError

from datamodules.loading import ResumableLoader
from datamodules.records import Source, read_records
from text.errors import DataFormatError, UserError
from text.judging.biggen import Place, choose
from text.judging.biggen_results import ResultRecord
from text.judging.rubrics import Rubric
from text.records import Located, Record, Text


class RubricChoice(Record):
    """A rubric to judge by in place of the instances' own.

    Args:
        id: of the instance it is for; null is for all of the task.
        capability: it is for; null is for all.
        task: it is for; null is for all of the capability.
        score_rubric: the rubric.
    """

    model_config = ConfigDict(extra="ignore")

    id: Text | None = None
    capability: Text | None = None
    task: Text | None = None
    score_rubric: Rubric


class BiggenResults(LightningDataModule):
    """Answers of several models with a human's scores and those of evaluators.

    Args:
        results: a source of `text.judging.biggen_results.ResultRecord`, such as
            ``hub:prometheus-eval/BiGGen-Bench-Results@human_eval`` or a Parquet file of it.
        judges: evaluators whose columns (``<name>_score``) are read; null is all.
        subset: see BiggenData.
        rubrics: a source of other rubrics, to see what those of the instances are worth (`RubricChoice`); the most
            particular one that fits an answer counts.
        split: what to ask of a world, or of a hub data set whose split is not written in the source.
        unseen_only: evaluators for whom rows marked ``used_for_training`` do not count: they were trained on them.

    Attributes:
        rows: what counts, in the order of the source.
        rubrics: of each row, None where it has none.
        judges: names of the evaluators.
    """

    def __init__(
        self,
        results: Source,
        judges: list[str] | None = None,
        subset: str = "all",
        rubrics: Source | None = None,
        split: str = "results",
        unseen_only: Sequence[str] = ("prometheus_8x7b_bgb",),
    ):
        super().__init__()
        self.results, self.wanted, self.subset, self.split = results, judges, subset, split
        self.rubric_source, self.unseen_only = rubrics, tuple(unseen_only)

    def setup(self, stage: str) -> None:
        """Reads the rows."""
        found = read_records(self.results, ResultRecord, self.split)
        places = [Place(located.record.capability, located.record.task) for located in found]
        self.located = [found[number] for number in choose(places, self.subset)]
        self.rows = [located.record for located in self.located]
        columns = list(dict.fromkeys(name for row in self.rows for name in row.judges()))
        if lacking := [name for name in self.wanted or [] if name not in columns]:
            raise UserError(
                f"data.judges: no column '{lacking[0]}_score' in the results; there are those of "
                f"{', '.join(columns) or 'nobody'}"
            )
        self.judges = columns if self.wanted is None else self.wanted
        self._check()
        self.rubrics = self._rubrics()

    def test_dataloader(self) -> ResumableLoader:
        """All rows at once: they are only read."""
        return ResumableLoader(lambda at: self.rows, 1)

    def _check(self) -> None:
        problems = []
        for located in self.located:
            for judge in self.judges:
                try:
                    located.record.ratings(judge)
                except ValidationError as error:
                    (detail,) = error.errors()
                    problems.append(f"{located.where}: field '{detail['loc'][0]}': {detail['msg']}")
        if problems:
            raise DataFormatError(problems)

    def _rubrics(self) -> list[Rubric | None]:
        if self.rubric_source is None:
            return [row.score_rubric for row in self.rows]
        given = read_records(self.rubric_source, RubricChoice, "rubrics")
        return [_most_particular(row, given) for row in self.rows]


def _most_particular(row: ResultRecord, given: Sequence[Located[RubricChoice]]) -> Rubric | None:
    def fits(choice: RubricChoice) -> bool:
        asked = ((choice.id, row.instance), (choice.capability, row.capability), (choice.task, row.task))
        return all(wanted is None or wanted == has for wanted, has in asked)

    fitting = [located.record for located in given if fits(located.record)]
    fitting.sort(key=lambda choice: (choice.id is None, choice.task is None, choice.capability is None))
    return fitting[0].score_rubric if fitting else None
