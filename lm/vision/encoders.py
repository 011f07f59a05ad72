"""Encoders of frames as backbones: which model sees, as plain values, and how to build it.

The same descriptions as lm/backbones/backbone.py, for the vision half of SigLIP, SigLIP 2 and CLIP, for DINO, VideoMAE
and V-JEPA 2, and for what timm has. Images come in as they were decoded; what they become is in lm/vision/features.py.

Annotations are types here, not strings: see lm/backbones/backbone.py.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from lm.backbones.backbone import Backbone, PretrainedBackbone, ScratchBackbone
from lm.files.names import asked_of, resolve
from lm.vision import lite0  # noqa: F401  which transformers knows of from then on
from lm.vision.shapes import Shape, shape_of
from text.errors import UserError

NORMS = ("post_layernorm", "layernorm", "norm")  # behind the last layer, by what they are called


class VisionBackbone(Backbone):
    """An encoder of images or videos.

    Attributes:
        layer: whose output is read: -1 of the last one, -2 of the one before it, which is left out then.
        pairs: encode every frame together with the one before it.
    """

    layer: int
    pairs: bool

    @property
    def shape(self) -> Shape:
        """What it wants and gives."""
        raise NotImplementedError

    def cut(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model without what nothing here reads: pooling heads, and layers behind the one that is read.

        Raises:
            UserError: if it has no such layer.
        """
        inner = getattr(model, "vision_model", model)
        for name in ("head", "pooler"):
            if isinstance(getattr(inner, name, None), nn.Module):
                setattr(inner, name, None)
        if isinstance(getattr(model, "predictor", None), nn.Module):  # of V-JEPA 2, which sees with its encoder alone
            model.predictor = None
        if hasattr(inner, "use_head"):
            inner.use_head = False
        if self.layer == -1:
            return model
        stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
        stack = next((part for part in stacks if isinstance(next(iter(part), None), GradientCheckpointingLayer)), None)
        if stack is None or not 0 < len(stack) + 1 + self.layer <= len(stack):
            raise UserError(f"vision: {type(model).__name__} has no layer {self.layer} that could be read")
        del stack[len(stack) + 1 + self.layer :]
        around = [part for part in model.modules() if stack in part.modules()]  # of V-JEPA 2 it is in the encoder
        for part, name in product(around, NORMS):
            if isinstance(getattr(part, name, None), nn.Module):
                setattr(part, name, nn.Identity())
        return model

    def _check(self) -> None:
        if self.layer >= 0:
            raise UserError(f"vision: 'layer' is {self.layer}: it counts from the end, -1 is the last one")
        if self.pairs and self.shape.slot_frames != 2:
            raise UserError("vision: 'pairs' needs an encoder whose slots are of 2 frames (tubelet_size: 2)")


class VisionHalf:
    """Finds the class of transformers that sees: of a model of images and texts the first half alone."""

    @staticmethod
    def own_config(config: Any) -> Any:
        """The configuration of the half that sees."""
        return getattr(config, "vision_config", None) or config

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        """As transformers' own."""
        about = {key: options[key] for key in ("revision", "trust_remote_code")}
        config = cls.own_config(AutoConfig.from_pretrained(name, **about))
        kind = AutoModel._model_mapping[type(config)]
        return kind.from_pretrained(name, config=config, **{k: v for k, v in options.items() if k not in about} | about)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> Any:
        """As transformers' own."""
        return AutoModel.from_config(cls.own_config(config), **options)


@dataclass(frozen=True)
class PretrainedVision(VisionBackbone, PretrainedBackbone):
    """A published encoder of images or videos.

    Args:
        name_or_path: hub id, local folder, or ``builtin:lite0``, the EfficientNet-Lite0 that comes with the extra
            `video` and needs no network.
        layer: whose output is read; -2 of SigLIP and CLIP is what most video models read.
        pairs: encode every frame together with the one before it; for encoders of tubelets of 2 frames.
    """

    layer: int = -1
    pairs: bool = False

    auto: ClassVar[Any] = VisionHalf
    task: ClassVar[str] = "FEATURE_EXTRACTION"
    replaceable: ClassVar[tuple[str, ...]] = ("pooler.", "head.", "vision_model.head.", "predictor.")

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        super().__post_init__()
        if self.layer >= 0:
            self._check()

    @cached_property
    def shape(self) -> Shape:
        """What it wants and gives; asks for its configuration, and for that of what prepares its images."""
        name, revision = resolve(self.name_or_path, "model"), self.revision or "main"
        with asked_of(name, "auto"):
            config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=self.trust_remote_code)
            colours = get_image_processor_config(name, revision=revision)
        return shape_of(VisionHalf.own_config(config), colours)

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model with its weights; files that do not hold all of them are refused."""
        self._check()
        name = resolve(self.name_or_path, "model")
        with asked_of(name, self.attn_implementation) as attention:
            model, info = VisionHalf.from_pretrained(
                name,
                revision=self.revision or "main",
                dtype=self.dtype,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
                **({} if self.shape.kind == "timm_wrapper" else {"attn_implementation": attention}),
            )
        if missing := sorted(key for key in info["missing_keys"] if not key.startswith(self.replaceable)):
            raise UserError(f"'{name}' lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}")
        return self.cut(model)

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture, from its configuration alone."""
        return self.cut(super().skeleton(tokenizer))


@dataclass(frozen=True)
class ScratchVision(VisionBackbone, ScratchBackbone):
    """An encoder with random weights, of any architecture of transformers that sees.

    Args:
        architecture: ``siglip_vision_model``, ``clip_vision_model``, ``dinov2``, ``videomae``, ``vjepa2``, ...
        config: its configuration (hidden_size, image_size, patch_size, ...).
        layer: whose output is read.
        pairs: encode every frame together with the one before it; for encoders of tubelets of 2 frames.
    """

    layer: int = -1
    pairs: bool = False

    auto: ClassVar[Any] = VisionHalf
    task: ClassVar[str] = "FEATURE_EXTRACTION"
    architectures: ClassVar[Any] = MODEL_MAPPING_NAMES
    kind: ClassVar[str] = "a model"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        super().__post_init__()
        self._check()

    def configuration(self, tokenizer: PreTrainedTokenizerBase | None = None) -> Any:
        """As it is asked for; a tokenizer has no part in it."""
        try:
            return AutoConfig.for_model(self.architecture, **self.config)
        except Exception as error:  # the strict dataclasses of huggingface_hub derive from Exception
            said = " ".join(str(error).split())
            raise UserError(f"vision: {self.architecture} does not accept this 'config': {said}") from error

    @cached_property
    def shape(self) -> Shape:
        """What it wants and gives."""
        return shape_of(self.configuration())

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model; its weights are drawn from torch's random state."""
        with asked_of(self.architecture, self.attn_implementation) as attention:
            made = VisionHalf.from_config(
                self.configuration(),
                dtype=getattr(torch, self.dtype),
                attn_implementation=attention,
                trust_remote_code=False,
            )
        return self.cut(made)
