"""The first examples as the model sees them: decoded, what is scored marked, so that a wrong template is seen at once.

It knows the batch types of lm/. It does not know methods: whatever a batch holds beside tokens is shown if it is called
``weights``, and whatever a datamodule counted as left out if it is called ``dropped``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lm.forests.batches import PairBatch, TokenRows
from lm.forests.forest import Forest
from lm.forests.readable import path_tokens
from text.excerpts import printable, shorten

OPEN, CLOSE = "⟦", "⟧"  # around what is scored; characters that no corpus uses
PAGE = 110  # characters of a line on the page of TensorBoard


class Preview(Callback):
    """Shows the first examples of the first training batch, in the terminal and under ``preview`` in TensorBoard.

    Args:
        examples: how many to show; 0 shows none.
        characters: how much of a long example to show, half from its beginning and half from its end.
    """

    def __init__(self, examples: int = 2, characters: int = 600):
        self.examples = examples
        self.characters = characters
        self.done = examples == 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Shows the batch once per process, after the callbacks before this one have changed it."""
        tokenizer = getattr(trainer.datamodule, "tokenizer", None)
        if self.done or not trainer.is_global_zero or tokenizer is None:
            return
        self.done = True
        rows = list(self.rows(batch, tokenizer))
        if not rows:
            return
        dropped: Mapping[str, int] = getattr(trainer.datamodule, "dropped", None) or {}
        left_out = "; ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "nothing"
        title = f"First batch: {len(batch)} examples, left out of the data: {left_out}"
        Console().print(preview_table(title, rows))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("preview", preview_markdown(title, rows), trainer.global_step)

    def rows(self, batch: Any, tokenizer: Any) -> list[tuple[str, str]]:
        """(what is known about an example, its text) for the first examples; empty for a batch without tokens."""
        weights = getattr(batch, "weights", None)
        sides = 2 if isinstance(batch, PairBatch) else 1  # sequences of one weight
        shown = []
        for number, (tokens, scored) in enumerate(first_sequences(getattr(batch, "forest", batch), self.examples)):
            facts = f"{len(tokens)} tokens\n{sum(scored)} scored"
            if weights is not None and number // sides < len(weights):
                facts += f"\nweight {float(weights[number // sides]):.3g}"
            shown.append((facts, shorten(printable(mark(tokens, scored, tokenizer)), self.characters)))
        return shown


def first_sequences(batch: Any, count: int) -> list[tuple[list[int], list[bool]]]:
    """Token ids of the first sequences of a batch, and which of them are scored."""
    if isinstance(batch, TokenRows):
        rows = batch.input_ids[:count].tolist()
        return [(row, [False] + [True] * (len(row) - 1)) for row in rows]
    if isinstance(batch, Forest):
        paths = [path_tokens(batch, path) for path in range(min(count, len(batch.path_offsets) - 1))]
        return [path for path in paths if path[0]]
    return []


def mark(tokens: Sequence[int], scored: Sequence[bool], tokenizer: Any) -> str:
    """The text of the tokens, with marks around each run of scored ones."""
    text, start = "", 0
    for end in range(1, len(tokens) + 1):
        if end == len(tokens) or scored[end] != scored[start]:
            piece = tokenizer.decode(list(tokens[start:end]))
            text += f"{OPEN}{piece}{CLOSE}" if scored[start] else piece
            start = end
    return text


def preview_table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """The terminal's form."""
    table = Table(title=title, show_lines=True, title_justify="left")
    table.add_column("example", no_wrap=True)
    table.add_column(f"text, {OPEN}scored{CLOSE}", overflow="fold")
    for facts, text in rows:
        table.add_row(facts, escape(text))
    return table


def preview_markdown(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """TensorBoard's form: four leading spaces keep the text as it is; lines are broken, since its page does not."""
    examples = [
        "\n    ".join([f"{facts}\n", *(part for line in text.split("\n") for part in broken(line))])
        for facts, text in rows
    ]
    return "\n\n".join([title, *examples])


def broken(line: str) -> list[str]:
    """A line in parts that fit on the page; together they are the line."""
    return textwrap.wrap(line, PAGE, replace_whitespace=False, drop_whitespace=False, expand_tabs=False) or [""]
