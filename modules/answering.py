"""A model that answers prompts: no training, no method, only its answers.

`python main.py predict --config configs/generate.yaml`. This file knows prompts as tokens and how many answers are
wanted. It does not know how prompts became tokens (datamodules/prompts.py), how answers are decoded
(lm/generation/engine.py), nor where they go (callbacks/responses.py).
"""

from __future__ import annotations

from functools import cached_property

from lm.backbones.backbone import Backbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding, Sample
from lm.generation.engine import Generates
from lm.generation.kept_answers import LoggedEngine
from lm.generation.sampling import seed_of
from modules.base.language_module import LanguageModule


class Generation(LanguageModule):
    """Answers prompts.

    Draw j of a prompt depends on ``seed``, the prompt's id and j alone: not on batches, their order, or the ranks.

    Args:
        backbone: the model that answers: a PretrainedBackbone, or a TrainedBackbone with the folder of a run.
        decoding: how answers are chosen.
        samples: answers of each prompt.
        seed: of the draws.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
        engine: ``cache`` computes what draws share once, ``plain`` does with any model, ``auto`` takes the first that
            can; the answers are the same.
        kept_answers: folder in which answers are kept as they come: a run that was broken off finds them there. Null
            keeps none.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoding: Decoding = Decoding(),  # noqa: B008  frozen
        samples: int = 1,
        seed: int = 0,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
        kept_answers: str | None = None,
    ):
        super().__init__(backbone)
        self.decoding, self.samples, self.seed, self.max_batch_tokens = decoding, samples, seed, max_batch_tokens
        self.engine_name: EngineName = engine
        self.log_folder = kept_answers

    @cached_property
    def engine(self) -> Generates:
        """What generates, once the model is built."""
        assert self.tokenizer is not None
        engine = engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)
        return engine if self.log_folder is None else LoggedEngine(engine, self.log_folder)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Sample]:
        """``samples`` answers of each prompt, those of a prompt side by side."""
        seeds = [seed_of(self.seed, name) for name in batch.ids]
        return self.engine.generate(batch.prompts, self.samples, self.decoding, seeds)
