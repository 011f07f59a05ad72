"""What a run tells of videos: how many could not be shown, and what was seen of those that were asked about.

It knows batches of clips, samples and run folders. It does not know how files are read or answers made.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lm.generation.decoding import Sample
from lm.steps.gather import merge_over_ranks
from lm.vision.batch import VideoPromptBatch
from text.excerpts import printable, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SIDE, LINE, LETTER = 1.6, 0.16, 0.065  # inches of a contact sheet: of a frame, and of words at 8 points


class SkippedVideos(Callback):
    """Logs ``data/skipped/<kind>`` at the end of epochs: how many records are left out as their video cannot be shown.

    Which these are, and why, stands in ``<run folder>/skipped.jsonl`` (lm/vision/skipped.py), with or without it.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts those of all splits, on all ranks."""
        skipped = merge_over_ranks(dict(getattr(trainer.datamodule, "skipped", {})))  # type: ignore[attr-defined]
        kinds = Counter(skipped.values())
        counts = {f"data/skipped/{kind}": float(count) for kind, count in kinds.items()}
        pl_module.log_dict(counts, rank_zero_only=True)

    on_validation_epoch_end = on_test_epoch_end = on_train_epoch_end


class ContactSheet(Callback):
    """Draws ``<run folder>/contact_sheet.png`` when questions are answered: the frames of each clip, and what was said.

    Args:
        clips: most of them on the sheet.
        frames: most of each clip.
    """

    def __init__(self, clips: int = 8, frames: int = 8):
        self.clips, self.frames = clips, frames
        self.rows: list[tuple[np.ndarray, str]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is answered yet."""
        self.rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[Sample],
        batch: VideoPromptBatch,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Takes what was seen and said on the first rank; questions of a clip follow one another."""
        draws = len(outputs) // max(len(batch), 1)
        said: dict[tuple[str, str], list[str]] = {}  # by file and record: several may look at parts of one file
        for place, record in enumerate(batch.records):
            answer = shorten(printable(outputs[place * draws].text), 90)
            name = str(record.get("id"))
            own = str(record.get("video")), name.rpartition("#")[0] or name
            said.setdefault(own, []).append(f"{_asked(record['prompt'])}  ->  {answer}")
        of_clips = [(video, told) for (video, _), told in said.items() if video != "None"]
        for (video, told), clip in zip(of_clips, batch.clips, strict=False):
            if len(self.rows) < self.clips:
                picked = np.unique(np.linspace(0, len(clip.pixels) - 1, self.frames).round().astype(int))
                images = clip.pixels[picked].cpu().permute(0, 2, 3, 1).numpy()
                self.rows.append((images, "\n".join([Path(video).name, *told])))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the sheet."""
        log_dir = trainer.log_dir  # agreed between ranks: every rank has to ask
        if not trainer.is_global_zero or log_dir is None or not self.rows:
            return
        from metrics.report_files import write_figure

        write_figure(Path(log_dir) / "contact_sheet.png", self._figure())
        print(f"ContactSheet: {Path(log_dir) / 'contact_sheet.png'}")

    def _figure(self) -> Figure:
        from matplotlib.figure import Figure

        lines = [text.split("\n") for _, text in self.rows]
        longest = max(len(line) for told in lines for line in told)
        columns = max(*(len(images) for images, _ in self.rows), math.ceil(LETTER * longest / SIDE))
        heights = [height for told in lines for height in (LINE * (len(told) + 1), SIDE)]
        figure = Figure(figsize=(SIDE * columns, sum(heights) + LINE))
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights, hspace=0, wspace=0.05)
        grid.update(left=0.01, right=0.99, top=1, bottom=LINE / figure.get_figheight())
        for number, (images, text) in enumerate(self.rows):
            words = figure.add_subplot(grid[2 * number, :])  # of their own: in a title they would push frames aside
            words.text(0, 0.05, text, fontsize=8, transform=words.transAxes)
            shown = [figure.add_subplot(grid[2 * number + 1, column]) for column in range(len(images))]
            for place, image in zip(shown, images, strict=True):
                place.imshow(image)
            for place in (words, *shown):
                place.axis("off")
        return figure


def _asked(prompt: Any) -> str:
    """The last words of a prompt."""
    return shorten(prompt if isinstance(prompt, str) else str(prompt[-1]["content"]), 90)
