"""How well a model still reads plain text while it learns something else: what is forgotten shows here.

It knows a module that scores forests and texts. It does not know what the module learns.
"""

from __future__ import annotations

import math
from pathlib import Path as File
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lm.forests.forest import Forest, Path
from lm.scoring.logprobs import forest_logprobs
from lm.scoring.model_scores import ModelScores
from lm.steps.lightning_private import validates_a_fit
from text.errors import UserError


class TextPerplexity(Callback):
    """Logs ``text/perplexity`` before the first step, at every validation and at the end, and how far it has risen.

    Args:
        texts: a text file; a document is a line that is not blank.
        limit: documents that are read.
        length: tokens of each, at most.
    """

    def __init__(self, texts: str, limit: int = 50, length: int = 256):
        if limit < 1 or length < 2:
            raise UserError(f"TextPerplexity: limit is {limit} and length {length}: at least 1 and 2")
        self.texts, self.limit, self.length = texts, limit, length
        self.first: float | None = None
        self._paths: list[Path] = []

    def state_dict(self) -> dict[str, Any]:
        """What it was before training."""
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with it after a resume, too."""
        self.first = state["first"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tokenise, and measure what is to be kept."""
        tokenizer: Any = pl_module.tokenizer
        file = File(self.texts).expanduser()
        if not file.is_file():
            raise UserError(f"TextPerplexity: {self.texts}: no such file")
        lines = file.read_text(encoding="utf-8").splitlines()
        texts = [line for line in lines if line.strip()][: self.limit]
        rows = [tokenizer(text, add_special_tokens=False)["input_ids"][: self.length] for text in texts]
        self._paths = [Path(ids, 1) for ids in rows if len(ids) > 1]
        if not self._paths:
            raise UserError("TextPerplexity: no text has two tokens")
        if self.first is None:  # a resumed run knows it, and has no further row at the step that it goes on from
            self._measure(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure again."""
        if validates_a_fit(trainer):
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure at last."""
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        total = count = 0.0
        with torch.no_grad(), ModelScores(module.model).at_work() as model:
            for path in self._paths:
                logprobs = forest_logprobs(model, Forest.from_paths([path]).to(module.device))
                total, count = total + float(logprobs.sum()), count + len(logprobs)
        perplexity = math.exp(-total / count)
        self.first = perplexity if self.first is None else self.first
        told = {"text/perplexity": perplexity, "text/perplexity_delta": perplexity - self.first}
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in told.items()})
        for logger in trainer.loggers:
            logger.log_metrics(told, step=trainer.global_step)
