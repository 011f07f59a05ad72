"""EfficientNet-Lite0 (arXiv 1905.11946, without squeeze and excitation) as a model of transformers.

Of an image of 224 pixels come 7 x 7 features of 1,280 numbers. The weights come in a package (lm/files/packaged.py).

timm has it too; its package needs the torchvision of the same build as torch, which not every machine can have.

Legend: B images, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from lm.files.packaged import WRITERS


class Stage(NamedTuple):
    """Blocks of one kind: how many, kernel, stride of the first, expansion, channels."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Lite0Config(PreTrainedConfig):
    """There is one size; images are 224 pixels."""

    model_type = "efficientnet_lite"

    def __init__(self, hidden_size: int = 1280, image_size: int = 224, patch_size: int = 32, **kwargs: Any):
        self.hidden_size, self.image_size, self.patch_size = hidden_size, image_size, patch_size
        super().__init__(**kwargs)


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: more behind than before."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W]."""
        pads = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(F.pad(input, pads))


def _conv(before: int, behind: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        SameConv(before, behind, kernel, stride, groups=groups, bias=False), nn.BatchNorm2d(behind, eps=1e-3)
    )


class Block(nn.Module):
    """Widened, convolved channel by channel, and narrowed; with what came in if it is of the same size."""

    def __init__(self, before: int, stage: Stage, stride: int):
        super().__init__()
        wide = before * stage.expand
        self.expand = _conv(before, wide) if stage.expand > 1 else None
        self.depthwise = _conv(wide, wide, stage.kernel, stride, groups=wide)
        self.project = _conv(wide, stage.channels)
        self.skips = stride == 1 and before == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W]."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.skips else out


class Lite0Model(PreTrainedModel):
    """The network without its classes."""

    config_class = Lite0Config
    main_input_name = "pixel_values"

    def __init__(self, config: Lite0Config):
        super().__init__(config)
        self.stem = _conv(3, 32, 3, 2)
        channels, blocks = 32, []
        for stage in STAGES:
            for number in range(stage.blocks):
                blocks.append(Block(channels, stage, stage.stride if number == 0 else 1))
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.last = _conv(channels, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The layer that reads pixels."""
        return self.stem[0]

    def forward(self, pixel_values: Tensor, **ignored: Any) -> BaseModelOutput:
        """[B, 3, 224, 224] -> [B, 1280, 7, 7]."""
        x = F.relu6(self.stem(pixel_values))
        for block in self.blocks:
            x = block(x)
        return BaseModelOutput(last_hidden_state=F.relu6(self.last(x)))


AutoConfig.register(Lite0Config.model_type, Lite0Config)
AutoModel.register(Lite0Config, Lite0Model)

NAMES = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    "_conv_head": "last.0",
    "_bn1": "last.1",
    "_expand_conv": "expand.0",
    "_depthwise_conv": "depthwise.0",
    "_project_conv": "project.0",
}
NORMS = {"_bn0": "expand.1", "_bn1": "depthwise.1", "_bn2": "project.1"}  # within a block


def write_folder(weights: Path, folder: Path) -> None:
    """Write the folder of the model from a file of the package: tensors are read, nothing is run."""
    given = torch.load(weights, weights_only=True, map_location="cpu")
    model = Lite0Model(Lite0Config())
    model.load_state_dict({_renamed(name): value for name, value in given.items() if not name.startswith("_fc.")})
    model.save_pretrained(folder)


def _renamed(name: str) -> str:
    if not name.startswith("_blocks."):
        first, _, rest = name.partition(".")
        return f"{NAMES[first]}.{rest}"
    _, number, part, rest = name.split(".", 3)
    return f"blocks.{number}.{NORMS.get(part) or NAMES[part]}.{rest}"


WRITERS["lite0"] = write_folder
