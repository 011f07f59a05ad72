"""The base of the stages of Self-Explore that make data: an engine that remembers what it drew before an interruption.

It knows how to generate. What is sampled, and what becomes of it, is the subclasses' (modules/self_explore/sampler.py,
modules/self_explore/explorer.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lm.backbones.backbone import Backbone
from lm.backbones.kept_key import model_sha256
from lm.files.kept_files import cache_folder
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding
from lm.generation.kept_answers import LoggedEngine
from modules.base.language_module import LanguageModule
from text.reasoning.answers import AnswerChecker
from text.records import Record


class Rollouts(LanguageModule):
    """Generates, and remembers: what was drawn is in the cache, and is judged anew by whoever takes it from there.

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

    @property
    def checker(self) -> AnswerChecker:
        """Of the data."""
        return self.trainer.datamodule.checker  # type: ignore[attr-defined]

    @cached_property
    def model_name(self) -> str:
        """Fingerprint of the model that writes."""
        return model_sha256(self.model)[:16]

    @property
    @abstractmethod
    def work(self) -> dict[str, Any]:
        """How it is done, in plain values: part of what is written."""

    @abstractmethod
    def files(self, results: Sequence[Any]) -> tuple[dict[str, Sequence[Record]], dict[str, Any]]:
        """What is written once all is done.

        Args:
            results: of all ranks, in the order of the data.

        Returns: records by the name of their file, and the counts for a manifest.
        """
