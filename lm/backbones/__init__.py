"""Which model a method is built on, as plain values: built, adapted, found again in checkpoints, exported.

It does not know what is scored or written with it.
"""

from lm.backbones.adapters import LoRA, PublishedAdapter, Quantization
from lm.backbones.backbone import Backbone, PretrainedBackbone, ScratchBackbone
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint, rebuild_model
from lm.backbones.encoder import PretrainedEncoder, ScratchEncoder
from lm.backbones.parts import Part
from lm.backbones.rebuilt import rebuild_backbone
from lm.backbones.reward_backbone import PretrainedReward, ScratchReward, TrainedReward
from lm.backbones.run_backbone import TrainedBackbone

__all__ = [
    "Backbone",
    "LoRA",
    "Part",
    "PretrainedBackbone",
    "PretrainedEncoder",
    "PretrainedReward",
    "PublishedAdapter",
    "Quantization",
    "ScratchBackbone",
    "ScratchEncoder",
    "ScratchReward",
    "TrainedBackbone",
    "TrainedReward",
    "find_checkpoint",
    "open_checkpoint",
    "rebuild_backbone",
    "rebuild_model",
]
