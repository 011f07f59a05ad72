"""Writes what a model answered: every answer as a line of a file, some of them on the screen and in TensorBoard.

It knows samples, the prompts they answer, and ranks. It does not know how answers were made or what they are good for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from callbacks.run_folders import atomic_write
from lm.forests.batches import PromptBatch
from lm.generation.decoding import Sample
from lm.steps.gather import merge_over_ranks
from text.excerpts import markdown_table, printable, shorten
from text.json_lines import json_line


class Responses(Callback):
    """Writes ``<run folder>/<name>`` when all prompts are answered: one line per answer, in the order of the prompts.

    A line is the record of the prompt with ``id``, ``draw`` (which of its answers), ``response`` and ``finished``
    (false: cut off by its length), and the fields of a sample's ``notes`` where it has any. The file is the same for
    any number of ranks and any batches. It appears when it is whole: a run that was interrupted leaves nothing, and
    starts anew.

    Args:
        name: of the file.
        shown: answers on the screen and in TensorBoard.
        characters: how much of a long text is shown.
    """

    def __init__(self, name: str = "responses.jsonl", shown: int = 10, characters: int = 600):
        self.name, self.shown, self.characters = name, shown, characters
        self.lines: dict[tuple[int, int], dict[str, Any]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is answered yet."""
        self.lines = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[Sample],
        batch: PromptBatch,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Takes the answers to some prompts, those to one prompt side by side."""
        draws = len(outputs) // max(len(batch), 1)  # of a batch that was left out there are none
        for number, sample in enumerate(outputs):
            place, draw = divmod(number, draws)
            answer = {"draw": draw, "response": sample.text, "finished": sample.finished}
            answer |= getattr(sample, "notes", {})
            self.lines[batch.rows[place], draw] = {"id": batch.ids[place], **batch.records[place], **answer}

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the answers of all ranks together, writes and shows them."""
        merged = merge_over_ranks(self.lines)
        log_dir = trainer.log_dir  # agreed between ranks: every rank has to ask
        if not trainer.is_global_zero:
            return
        lines = [merged[place] for place in sorted(merged)]
        self._show(trainer, lines[: self.shown])
        if log_dir is None:  # fast_dev_run
            return
        path = Path(log_dir) / self.name
        with atomic_write(path) as file:
            file.writelines(json_line(line) for line in lines)
        finished = sum(line["finished"] for line in lines)
        print(f"Responses: {path} ({len(lines)}, of which {len(lines) - finished} were cut off by their length)")

    def _show(self, trainer: Trainer, lines: list[dict[str, Any]]) -> None:
        if not lines:
            return
        rows = [(_words(line["prompt"]), line["response"]) for line in lines]
        table = Table("prompt", "response", show_lines=True)
        for row in rows:
            table.add_row(*(escape(shorten(printable(text), self.characters)) for text in row))
        Console().print(table)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                shown = markdown_table(["prompt", "response"], rows, self.characters)
                logger.experiment.add_text("responses", shown, trainer.global_step)


def _words(prompt: str | list[dict[str, str]]) -> str:
    """A prompt for a reader: a text as it is, messages by who speaks."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
