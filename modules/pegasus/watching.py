"""What a method needs to see clips: the encoder and the aligner beside its language model, and the vectors they give.

A mixin for methods that score forests or generate. It knows features and vectors. It does not know what is trained on
them, nor where pixels come from (datamodules/videos.py).

Legend: S slots of all clips, R runs of slots that stand for one, P features of a slot, D their width, N vectors, E
width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.forest import Forest
from lm.vision.aligners import Aligner
from lm.vision.batch import Clip
from lm.vision.encoders import VisionBackbone
from lm.vision.feature_store import FeatureStore
from lm.vision.features import features
from lm.vision.merging import Merge
from lm.vision.sight import Sight
from lm.vision.times import TimeWords
from text.errors import UserError


class Watching:
    """The parts ``vision`` and ``aligner`` of a module.

    A class that has it before a `LanguageModule` among its bases calls `see_with` in its constructor.
    """

    parts: Any
    trainer: Any
    device: torch.device
    model: Any
    vision: Any
    aligner: Any

    def see_with(
        self,
        vision: VisionBackbone,
        aligner: Aligner,
        max_tokens: int,
        merge: Merge,
        time_words: TimeWords,
        kept_features: str | None,
    ) -> None:
        """Take what the module was given to see with; nothing is built yet.

        Raises:
            UserError: if features are to be kept of an encoder that is trained.
        """
        if not isinstance(vision, VisionBackbone):
            raise UserError(f"model: 'vision' is {vision!r}; give a PretrainedVision or a ScratchVision")
        if max_tokens < 1:
            raise UserError(f"model: 'max_tokens' is {max_tokens}; it must be 1 or more")
        self.vision_backbone, self.aligner_options = vision, aligner
        self.sight_options = {"max_tokens": max_tokens, "merge": merge, "time_words": time_words}
        self.features_folder = kept_features
        if kept_features is not None and not self.sees_fixed:
            raise UserError("model: features are kept of an encoder that does not change: parts.vision.frozen: true")

    @property
    def sees_fixed(self) -> bool:
        """Whether the encoder stays as it is."""
        return self.parts.option("vision").frozen

    @cached_property
    def sight(self) -> Sight:
        """How clips are laid out."""
        options: Any = self.sight_options
        return Sight(self.vision_backbone.shape, self.aligner_options, pairs=self.vision_backbone.pairs, **options)

    def backbones(self) -> dict[str, Backbone]:
        """The language model, and the encoder."""
        return super().backbones() | {"vision": self.vision_backbone}  # type: ignore[misc]

    def build_head(self) -> None:
        """The aligner, as wide as the model's embeddings."""
        super().build_head()  # type: ignore[misc]
        width = self.model.get_input_embeddings().weight.shape[1]
        shape = self.sight.shape
        self.aligner = self.aligner_options.build(shape.width, shape.grid, width)

    @cached_property
    def store(self) -> FeatureStore | None:
        """Features of earlier runs, if they are kept."""
        if self.features_folder is None:
            return None
        return FeatureStore(self.features_folder, self.vision, self.sight, str(self.trainer.precision))

    def watched(self, forest: Forest, clips: Sequence[Clip]) -> Forest:
        """A forest whose positions have the vectors of its clips; gradients flow back to what is trained."""
        return forest.with_vectors(self.vectors(clips))

    def vectors(self, clips: Sequence[Clip]) -> Tensor:
        """The vectors of clips, in turn [N, E]. Without any, encoder and aligner run all the same: ranks keep step."""
        shown = list(clips) or [self._blank]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.sees_fixed):
            x, counts = self._slots(shown)
        seconds = torch.tensor(np.concatenate([clip.slot_seconds for clip in shown]), device=x.device).float()
        lengths = torch.tensor([clip.length for clip in shown], device=x.device).float()
        lengths = lengths.repeat_interleave(torch.tensor(counts, device=x.device))
        found = self.aligner(x, seconds, lengths, counts)
        return found if clips else found[:0]

    def _slots(self, clips: Sequence[Clip]) -> tuple[Tensor, list[int]]:
        """Features of all clips [R, P, D], those of merged slots averaged, and how many slots each has."""
        fresh = [clip for clip in clips if clip.features is None]
        made = iter(())
        if fresh:
            pixels = torch.cat([clip.pixels for clip in fresh])
            sizes = [len(clip.pixels) for clip in fresh]
            found = features(self.vision, self.sight.shape, pixels, sizes, self.sight.pairs)
            made = iter(found.split([len(clip.times) for clip in fresh]))
        slots = []
        for clip in clips:
            x = clip.features if clip.features is not None else next(made, None)
            assert x is not None
            if clip.features is None and self.store is not None and clip is not self._blank:
                self.store.put(clip, x)
            if len(clip.runs) < len(x):
                x = torch.stack([x[run.start : run.stop].mean(0) for run in clip.runs])
            slots.append(x.to(next(self.aligner.parameters(), x).dtype))
        return torch.cat(slots), [len(clip.runs) for clip in clips]

    @cached_property
    def _blank(self) -> Clip:
        """A clip that nobody asked for."""
        shape = self.sight.shape
        frames = self.sight.slot_frames
        pixels = torch.zeros(frames, 3, shape.size, shape.size, dtype=torch.uint8, device=self.device)
        return Clip("blank", pixels, np.zeros(1), [range(0, 1)], 1.0, self.sight.num_tokens(frames), np.zeros((1, 0)))
