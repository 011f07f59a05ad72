"""A few prompts answered at every validation, so that a reader sees what the numbers mean.

It knows prompts, an engine and TensorBoard. It does not know what the model is trained for.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lm.forests.forest import Forest
from lm.forests.readable import path_context
from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.generation.sampling import seed_of
from lm.steps.lightning_private import validates_a_fit
from lm.tokens.chat import ChatFormat
from text.errors import UserError
from text.excerpts import markdown_table


class SampleTable(Callback):
    """Logs a table of prompts and outputs under ``samples`` in TensorBoard, at every validation of a fit.

    Training cannot tell: no dropout, no random numbers of its generators, modes put back.

    Args:
        prompts: texts of a user, rendered as the datamodule renders; null takes the first prompts of the held-out data.
        examples: how many of these.
        decoding: how outputs are chosen.
        seed: of their draws, the same at every validation.
        every: answer at each so manieth validation.
        characters: how much of a long text is shown.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        examples: int = 4,
        decoding: Decoding = Decoding(max_new_tokens=64),  # noqa: B008  frozen
        seed: int = 0,
        every: int = 1,
        characters: int = 600,
    ):
        if examples < 1 or every < 1 or prompts == []:
            raise UserError("SampleTable: examples and every must be at least 1, and prompts null or some texts")
        self.prompts, self.examples, self.decoding = prompts, examples, decoding
        self.seed, self.every, self.characters = seed, every, characters
        self.validations = 0
        self.tokens: list[list[int]] = []

    @property
    def state_key(self) -> str:
        """A fit may have several tables."""
        names = ("prompts", "examples", "decoding", "seed", "every", "characters")
        return self._generate_state_key(**{name: getattr(self, name) for name in names})

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were: a resumed run answers at the same ones."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.validations = state_dict["validations"]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Renders the prompts that were given."""
        if self.prompts is not None and not self.tokens:
            data: Any = trainer.datamodule
            renderer = getattr(data, "renderer", None) or ChatFormat().renderer(data.tokenizer)
            self.tokens = [renderer.prompt_ids(text) for text in self.prompts]

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Remembers the first prompts that come by, where none were given."""
        if self.prompts is None and len(self.tokens) < self.examples:
            forest = getattr(batch, "forest", batch)
            if not isinstance(forest, Forest):
                raise UserError(f"SampleTable: a {type(batch).__name__} has no prompts: give 'prompts'")
            paths = range(len(forest.path_offsets) - 1)
            seen = [*self.tokens, *(path_context(forest, path) for path in paths)]
            self.tokens = list({tuple(tokens): tokens for tokens in seen if tokens}.values())[: self.examples]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answers and logs."""
        if not validates_a_fit(trainer):
            return
        self.validations += 1
        if (self.validations - 1) % self.every == 0:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        engine = PlainEngine(module.model, module.tokenizer)
        if not trainer.is_global_zero and not engine.sharded:
            return
        seeds = [seed_of(self.seed, number) for number in range(len(self.tokens))]
        with trainer.precision_plugin.forward_context():
            samples = engine.generate(self.tokens, 1, self.decoding, seeds)
        rows = [
            (module.tokenizer.decode(tokens), sample.text + ("" if sample.finished else " …"))
            for tokens, sample in zip(self.tokens, samples, strict=True)
        ]
        for logger in trainer.loggers:  # on the other ranks it writes nothing
            if isinstance(logger, TensorBoardLogger):
                table = markdown_table(["prompt", "output"], rows, self.characters)
                logger.experiment.add_text("samples", table, trainer.global_step)
