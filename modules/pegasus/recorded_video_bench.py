"""Benchmarks about videos on what is on record: no model, nobody is asked.

`python main.py test --config configs/pegasus/tempcompass.yaml`. Knows when a report is made and where it goes. It does
not know what is measured (datamodules/video_answers.py, metrics/video).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from metrics.video.report import VideoReport
from text.errors import UserError
from text.json_lines import plain


class RecordedVideoBench(LightningModule):
    """Reports what answers on record are worth: ``<name>/average``, ``<name>/aspect/<aspect>`` and others.

    Args:
        name: what scalars are called after.
    """

    def __init__(self, name: str = "video"):
        super().__init__()
        self.name = name

    def on_test_start(self) -> None:
        """The report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self.results: dict[str, Any] = {}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: all is measured at the end."""

    def tell(self, data: Any) -> VideoReport:
        """What the records come to."""
        if not hasattr(data, "report"):
            raise UserError("RecordedVideoBench measures what is on record: use VideoAnswers or VideoFacts")
        return data.report()

    def on_test_epoch_end(self) -> None:
        """Measure, log and write."""
        told = self.tell(self.trainer.datamodule)  # type: ignore[attr-defined]
        scalars = {f"{self.name}/{key}": value for key, value in told.scalars.items()}
        self.log_dict(scalars, rank_zero_only=True)
        self.results = plain(scalars)  # what is logged loses half of the digits
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if not self.trainer.is_global_zero:
            return
        print(told.text)
        if log_dir is not None:
            print(f"Report: {told.write(Path(log_dir) / self.name)}")

    def configure_optimizers(self) -> Any:
        """There is nothing to train."""
        raise UserError("RecordedVideoBench has nothing to train: use `test`")
