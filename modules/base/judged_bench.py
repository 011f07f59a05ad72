"""The base of benchmarks whose answers are judged when all of them are there, at the end of a test.

Knows when answers are put together, judged and reported, over any number of ranks. It does not know what is asked, how
a judge is put the questions, nor what a report says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger

from lm.protocols import HasInstances
from lm.steps.gather import merge_over_ranks
from text.errors import UserError
from text.json_lines import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Told(NamedTuple):
    """What a benchmark came to.

    Args:
        scalars: by name, without the name of the benchmark.
        text: of the report, in markdown.
        table: the part of it that fits on a screen of TensorBoard.
        figure: of the scores.
        write: puts report, figure and a line per instance into a folder; tells where the report is.
        further: what goes into metrics.json beside the scalars.
    """

    scalars: dict[str, float]
    text: str
    table: str
    figure: Figure
    write: Callable[[Path], Path]
    further: dict[str, Any] = {}  # noqa: RUF012  never changed


class JudgedBench(LightningModule):
    """Takes answers batch by batch, and tells at the end of a test what they came to.

    A subclass fills ``self._answers`` in its ``test_step``, by number of the instance.
    """

    benchmark = "bench"  # what scalars are called after
    wants = "use MultifacetedPrompts or BiggenData"

    def tell(self, answers: Mapping[int, Sequence[str]], notes: Sequence[str]) -> Told:
        """Judge and sum up; every rank is asked, with the answers of all.

        Args:
            answers: by number of the instance; without those that a limit of batches left out.
            notes: what a reader of the report should know.
        """
        raise NotImplementedError

    def on_test_start(self) -> None:
        """Nothing is answered yet; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.results: dict[str, Any] = {}
        self._answers: dict[int, Sequence[str]] = {}
        if not isinstance(self._data, HasInstances):
            raise UserError(f"{type(self).__name__} needs instances with rubrics: {self.wants}")

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_test_epoch_end(self) -> None:
        """Put the answers of all ranks together, judge, report and log ``<benchmark>/<scalar>``."""
        answers = merge_over_ranks(self._answers)
        there_are = len(self._data.instances)
        left_out = f"{len(answers):,} of {there_are:,} instances: the others were left out by a limit of batches."
        told = self.tell(answers, [] if len(answers) == there_are else [left_out])
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if not self.trainer.is_global_zero:
            return
        scalars = {f"{self.benchmark}/{name}": value for name, value in told.scalars.items()}
        self.log_dict(scalars, rank_zero_only=True)
        self.results = plain(scalars) | told.further  # what is logged loses half of the digits
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(self.benchmark, told.table, self.trainer.global_step)
                logger.experiment.add_figure(self.benchmark, told.figure, self.trainer.global_step)
        print(told.text)
        if log_dir is not None:
            print(f"Report: {told.write(Path(log_dir) / 'bench')}")

    def configure_optimizers(self) -> Any:
        """There is nothing to train."""
        raise UserError(f"{type(self).__name__} has nothing to train: use `test`")
