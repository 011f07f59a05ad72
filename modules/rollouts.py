"""The base of the stages of Self-Explore that make data: an engine, seeds, and what was done before an interruption.

It knows how to generate. What is sampled, and what becomes of it, is the subclasses' (modules/sampler.py,
modules/explorer.py).
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lm.adapters import weights_sha256
from lm.backbone import Backbone
from lm.cached_generation import SERVED, EngineName, engine_of
from lm.generation import Decoding, Engine
from lm.sampling import DRAWS
from modules.language_module import LanguageModule
from text.answers import AnswerChecker
from text.records import Record


class Rollouts(LanguageModule):
    """Generates, and remembers.

    Args:
        backbone: the model that writes.
        decoding: how.
        seed: of all draws.
        max_batch_tokens: tokens that are held at once.
        engine: ``cache`` computes what draws share once, ``plain`` does with any model, ``auto`` takes the first that
            can; the answers are the same. ``continuous`` and ``vllm``: see docs/generation.md.

    Attributes:
        done: what an interrupted run of the same work has finished already, by key; a callback fills it in.
        results: the counts of the files that were written, for metrics.json; likewise.
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
        self.done: dict[str, Any] = {}
        self.results: dict[str, Any] = {}

    @cached_property
    def engine(self) -> Engine:
        """What generates, once the model is built."""
        assert self.tokenizer is not None
        return engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)

    @property
    def checker(self) -> AnswerChecker:
        """Of the data."""
        return self.trainer.datamodule.checker  # type: ignore[attr-defined]

    @cached_property
    def model_name(self) -> str:
        """Fingerprint of the weights that write."""
        return weights_sha256(self.model.state_dict())[:16]

    @property
    @abstractmethod
    def work(self) -> dict[str, Any]:
        """All that decides the results beside the model and the question, in plain values."""

    def key(self, *parts: Any) -> str:
        """The key of a piece of work: the same for the same model, settings and parts."""
        drawn_by = self.engine_name if self.engine_name in SERVED else DRAWS
        told = json.dumps(
            [self.model_name, self.tokenizer_sha256, self.work, drawn_by, *parts], sort_keys=True, default=str
        )
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    @abstractmethod
    def files(self, results: Sequence[Any]) -> tuple[dict[str, Sequence[Record]], dict[str, Any]]:
        """What is written once all is done.

        Args:
            results: of all ranks, in the order of the data.

        Returns: records by the name of their file, and the counts for a manifest.
        """
