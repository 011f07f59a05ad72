"""Instances of Multifaceted Bench (arXiv 2405.17977): prompts under system messages, and what answers are judged by.

Knows records, and answers that are on record. It does not know who answers or judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datamodules.loading import ResumableLoader
from datamodules.prompts import Prompts
from datamodules.records import Source, read_records
from lm.benches.multifaceted import RubricBench
from lm.judging.recorded_answers import read_responses
from text.chat.multifaceted import BenchRecord
from text.records import Located


class MultifacetedPrompts(Prompts):
    """Instances with rubrics (`text.chat.multifaceted.BenchRecord`), to be answered or with answers on record.

    Args:
        prompts: a source of instances, or a world; see Prompts, as for the other arguments.
        responses: recorded answers: ``responses.jsonl`` of a run of predict, or ``instances.jsonl`` of a test. Null has
            them generated.

    Attributes:
        instances: what is asked, by row.
        recorded: answers to each instance, or None.
    """

    def __init__(self, prompts: Source, responses: str | None = None, **kwargs: Any):
        super().__init__(prompts, **kwargs)
        self.responses = responses
        self.recorded: Sequence[Sequence[str]] | None = None

    @property
    def instances(self) -> Sequence[Located[BenchRecord]]:
        """What is asked, by row."""
        return self.records  # type: ignore[return-value]  # of this class's own `_read`

    def setup(self, stage: str) -> None:
        """Reads the instances, and tokenises them or finds their answers."""
        if self.responses is None:
            super().setup(stage)
            return
        self.records = self._read()[: self.limit]
        self.recorded = read_responses(self.responses, [located.name for located in self.records])
        self.leave_untokenised()

    def test_dataloader(self) -> ResumableLoader:
        """This rank's instances."""
        return self.predict_dataloader()

    def benchmark(self) -> RubricBench:
        """The instances as a benchmark, for a run that does not test them (`lm.protocols.HasBenchmark`)."""
        return RubricBench(self._read()[: self.limit])

    def _read(self) -> list[Located[Any]]:
        source: Any = self.source
        return read_records(source, BenchRecord.with_names(self.field_map), self.split)
