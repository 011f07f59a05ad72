"""Pegasus: a language model that is shown videos and learns to answer questions about them (arXiv 2404.14687).

Three parts: an encoder that sees (``vision``), an aligner that brings what it sees to the space of the language model's
embeddings and reduces it, and the language model (``model``). Each has a rate of its own or is frozen, which is the
report's remedy against forgetting ("selective unfreezing with learning rate adjustments"). A stage is a run: in the
first the aligner alone is trained, in the second all that may change (docs/pegasus.md).

Several questions about a clip are branches of one tree, whose root is the clip. This file knows forests with vectors.
It does not know how pixels came (datamodules/videos.py).

Legend: K scored tokens of all answers, P paths.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.backbones.parts import Part
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding, Sample
from lm.generation.engine import Engine
from lm.generation.kept_answers import LoggedEngine
from lm.generation.sampling import seed_of
from lm.scoring.logprobs import forest_greedy
from lm.vision.aligners import Aligner
from lm.vision.batch import VideoBatch, VideoPromptBatch
from lm.vision.encoders import VisionBackbone
from lm.vision.merging import Merge
from lm.vision.times import TimeWords
from modules.base.exact_logs import Split
from modules.base.language_module import LanguageModule
from modules.pegasus.conversation import converse
from modules.pegasus.scored_answers import ScoredAnswers
from modules.pegasus.watching import Watching
from text.json_lines import plain


class Pegasus(Watching, LanguageModule):
    r"""Next-token prediction of answers about videos.

    With answers :math:`y_i` of :math:`n_i` tokens to questions :math:`x_i` about clips :math:`v_i`, the loss is

    .. math:: L = -\frac{1}{\sum_i n_i} \sum_i \sum_t \log p_\theta(y_{i,t} \mid a_\phi(e_\psi(v_i)), x_i, y_{i,<t})

    over the global batch, with encoder e and aligner a.

    Args:
        backbone: the language model.
        vision: the encoder.
        aligner: from the one to the other.
        max_tokens: vectors of a clip; a longer one is merged until it fits.
        merge: which of its slots become one: ``similarity`` the neighbours that look most alike, ``uniform`` runs of
            equal length; ``error`` refuses it.
        time_words: tell times as words: all of them before the vectors (``header``), or each before its own.
        kept_features: folder in which the features of a frozen encoder are kept: later training does not decode.
        decoding: how answers are chosen, in ``predict``.
        samples: answers to each question.
        seed: of their draws.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
        engine: see `modules.answering.Generation`.
        kept_answers: folder in which answers are kept as they come: a run that was broken off finds them there. Null
            keeps none.
        optimizer: see BackboneModule.
        lr_scheduler: see BackboneModule.
        share_prefixes: see LanguageModule.
        parts: of ``model``, ``vision`` and ``aligner``; see BackboneModule.

    Attributes:
        results: the scores of the last test that answered questions, as metrics.json holds them.
    """

    def __init__(
        self,
        backbone: Backbone,
        vision: VisionBackbone,
        aligner: Aligner = Aligner(),  # noqa: B008  frozen
        max_tokens: int = 2048,
        merge: Merge = "similarity",
        time_words: TimeWords = "none",
        kept_features: str | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008  frozen
        samples: int = 1,
        seed: int = 0,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
        kept_answers: str | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-5, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
        parts: dict[str, Part] | None = None,
    ):
        super().__init__(backbone, optimizer, lr_scheduler, share_prefixes, parts)
        self.see_with(vision, aligner, max_tokens, merge, time_words, kept_features)
        self.decoding, self.samples, self.seed = decoding, samples, seed
        self.max_batch_tokens, self.engine_name, self.log_folder = max_batch_tokens, engine, kept_answers
        self.results: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------- training

    def training_step(self, batch: VideoBatch, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, whatever its split into micro-batches and ranks."""
        forest = self.watched(batch.forest, batch.clips)
        return self.global_mean(-self.forest_logprobs(forest)[forest.path_targets])

    def validation_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """``val/loss``, and ``val/exact``: how many answers the model would write as they are, by kind of question."""
        self._evaluate("val", batch)

    def test_step(self, batch: VideoBatch | VideoPromptBatch, batch_idx: int) -> None:
        """The same as ``test/...``; questions without answers beside them (VideoPrompts) are answered, then scored."""
        if isinstance(batch, VideoPromptBatch):
            self._scored.take(batch, self.predict_step(batch, batch_idx))
        else:
            self._evaluate("test", batch)

    def on_test_epoch_start(self) -> None:
        """Nothing is answered yet."""
        super().on_test_epoch_start()
        self._scored, self.results = ScoredAnswers(), {}

    def on_test_epoch_end(self) -> None:
        """Log the means of the epoch, or ``test/average`` and others of what was answered (`answers_report`)."""
        super().on_test_epoch_end()
        order = getattr(self.trainer.datamodule, "frame_order", "ordered")  # type: ignore[attr-defined]
        scalars = self._scored.report(self.trainer, order, self.seed)
        self.results = plain({f"test/{name}": value for name, value in scalars.items()})
        self.log_dict(self.results, rank_zero_only=True)  # what is logged loses half of the digits

    def _evaluate(self, split: Split, batch: VideoBatch) -> None:
        forest = self.watched(batch.forest, batch.clips)
        self.log_for(split, "loss", -self.forest_logprobs(forest)[forest.path_targets])
        exact_P = self.exact(forest)
        self.log_for(split, "exact", exact_P)
        for kind in self.trainer.datamodule.kinds(split):  # type: ignore[attr-defined]  # the same on every rank
            of_kind = torch.tensor([own == kind for own in batch.kinds], device=exact_P.device)
            self.log_for(split, f"exact/{kind}", exact_P, of_kind.float())

    def exact(self, forest: Any) -> Tensor:
        """Whether greedy decoding would write each path's targets, every one of them, [P], float32."""
        first_N = forest_greedy(self.model, forest, self.share_prefixes)
        lengths = forest.path_offsets.diff()
        paths_K = torch.repeat_interleave(torch.arange(len(forest), device=lengths.device), lengths)
        right = torch.zeros(len(forest), device=lengths.device, dtype=torch.float32)
        right = right.index_add(0, paths_K, first_N[forest.path_targets].float())
        return (right == lengths).float()

    # ----------------------------------------------------------------------------------------------- answering

    @cached_property
    def engine(self) -> Engine | LoggedEngine:
        """What generates, once the model is built."""
        assert self.tokenizer is not None
        engine = engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)
        return engine if self.log_folder is None else LoggedEngine(engine, self.log_folder)

    @torch.no_grad()
    def predict_step(self, batch: VideoPromptBatch, batch_idx: int) -> list[Sample]:
        """``samples`` answers of each question; what is seen of a clip is computed once for all its questions.

        Those of a batch of conversations are turns of these (modules/pegasus/conversation.py).
        """
        self.engine.vectors = self.vectors([clip.to(self.device) for clip in batch.clips])
        seeds = [seed_of(self.seed, name) for name in batch.ids]
        if batch.talks:
            return converse(batch, self.engine, self.samples, self.decoding, seeds)
        return self.engine.generate(batch.prompts, self.samples, self.decoding, seeds)
