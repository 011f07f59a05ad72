"""Preference learning on videos: DPO and its relatives on pairs of answers about clips.

The policy and its reference read the same vectors: encoder and aligner stay as an earlier run left them. This file
knows where vectors come from. It does not know losses (modules/dpo.py).

Legend: B pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lm.backbones.backbone import Backbone
from lm.backbones.parts import Part, Parts
from lm.vision.aligners import Aligner
from lm.vision.batch import VideoPairBatch
from lm.vision.encoders import VisionBackbone
from lm.vision.merging import Merge
from lm.vision.times import TimeWords
from modules.base.exact_logs import Split
from modules.dpo import DPO, Pairs
from modules.pegasus.watching import Watching


class VideoDPO(Watching, DPO):
    """DPO whose prompts begin with a clip.

    Args:
        backbone: the language model that is trained: a TrainedBackbone of a run of Pegasus, say.
        vision: the encoder.
        aligner: that of the run.
        start: the run whose encoder and aligner are taken; null leaves them as they are built.
        max_tokens: see Pegasus.
        merge: see Pegasus.
        time_words: see Pegasus.
        options: see DPO; its ``reference`` cannot be ``precomputed``, as no table holds what is seen.
    """

    def __init__(
        self,
        backbone: Backbone,
        vision: VisionBackbone,
        aligner: Aligner = Aligner(),  # noqa: B008  frozen
        start: str | None = None,
        max_tokens: int = 2048,
        merge: Merge = "similarity",
        time_words: TimeWords = "none",
        **options: Any,
    ):
        super().__init__(backbone, **options)
        self.parts = Parts({name: Part(frozen=True, start=start) for name in ("vision", "aligner")})
        self.see_with(vision, aligner, max_tokens, merge, time_words, None)

    def score(self, batch: VideoPairBatch, split: Split) -> Pairs:  # type: ignore[override]
        """The batch under both policies."""
        return super().score(replace(batch, forest=self.watched(batch.forest, batch.clips)), split)
