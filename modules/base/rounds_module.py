"""The base of methods whose later prompts depend on earlier answers: rounds over many records, nothing asked twice.

It knows how to run the courses of many records together (lm/generation/rounds.py) and where answers are kept. What is
asked, and what becomes of it, is the subclasses'.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from lm.backbones.backbone import Backbone
from lm.backbones.kept_key import keeper, model_sha256
from lm.files.kept_files import cache_folder
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding
from lm.generation.kept_answers import LoggedEngine
from lm.generation.kept_choices import LoggedWeigh
from lm.generation.rounds import Choices, Course, run_rounds
from lm.scoring.choices import choice_logprobs
from lm.scoring.model_scores import ModelScores
from modules.base.language_module import LanguageModule
from text.records import Record


class RoundsModule(LanguageModule):
    """Asks its model about records, as often as each of them needs.

    Every answer is in the cache as soon as it is there, by the weights, the prompt and the seed: a run that was broken
    off goes on, and what is made of answers is made anew. Results are the same on any number of ranks.

    Args:
        backbone: the model that writes.
        decoding: how.
        seed: of all draws.
        max_batch_tokens: tokens that are held at once.
        engine: ``cache`` computes what draws share once, ``plain`` does with any model, ``auto`` takes the first that
            can; the answers are the same. ``continuous`` and ``vllm``: see docs/generation.md.

    Attributes:
        results: the counts of the files that were written, for metrics.json; a callback fills them in.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoding: Decoding = Decoding(max_new_tokens=512, temperature=0.7),  # noqa: B008  frozen
        seed: int = 42,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
    ):
        super().__init__(backbone)
        self.decoding, self.seed, self.max_batch_tokens = decoding, seed, max_batch_tokens
        self.engine_name: EngineName = engine
        self.results: dict[str, Any] = {}

    @cached_property
    def engine(self) -> LoggedEngine:
        """What generates, once the model is built."""
        assert self.tokenizer is not None
        engine = engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)
        return LoggedEngine(engine, cache_folder() / "rollouts")

    @cached_property
    def weigh(self) -> LoggedWeigh:
        """Who tells how likely choices are, once the model is built: its log-probs, summed over the tokens of each."""
        assert self.tokenizer is not None
        return LoggedWeigh(self._sums, partial(keeper, self.model, self.tokenizer), cache_folder() / "rollouts")

    def _sums(self, asked: Sequence[Choices]) -> list[list[float]]:
        score = ModelScores(self.model, share_prefixes=self.share_prefixes)
        prompts, choices = [one.prompt for one in asked], [one.choices for one in asked]
        sums = choice_logprobs(score, prompts, choices, self.max_batch_tokens).sums.tolist()
        return [row[: len(own)] for row, own in zip(sums, choices, strict=True)]

    @cached_property
    def model_name(self) -> str:
        """Fingerprint of the model that writes."""
        return model_sha256(self.model)[:16]

    @abstractmethod
    def course(self, prompt: list[int], id: str, asked: dict[str, Any]) -> Course[Any]:
        """What is done with a record: a generator that yields draws and choices, is sent answers, returns its result.

        It may depend on nothing but its record and its answers: then neither batches nor ranks can change the result.

        Args:
            prompt: its tokens.
            id: of the record.
            asked: the record.
        """

    def run(self, batch: PromptBatch) -> list[Any]:
        """The results of some records, in their order."""
        records = zip(batch.prompts, batch.ids, batch.records, strict=True)
        return run_rounds([self.course(*record) for record in records], self.engine, self.decoding, self.weigh)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Any]:
        """The result of each record."""
        return self.run(batch)

    @abstractmethod
    def files(self, results: Sequence[Any]) -> tuple[dict[str, Sequence[Record]], dict[str, Any]]:
        """What is written once all is done.

        Args:
            results: of all ranks, in the order of the data.

        Returns: records by the name of their file, and the counts for a manifest.
        """
