"""What an encoder of images or videos wants and gives, read off its configurations: no weights are needed for it.

Legend: T frames, S slots of features in time, P features of a slot, D their width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from text.errors import UserError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

SPECIAL = {"clip_vision_model": 1, "dinov2": 1}  # tokens that come before those of patches
COLOURS = {"clip_vision_model": CLIP, "siglip_vision_model": HALF, "siglip2_vision_model": HALF}


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder.

    Args:
        kind: its ``model_type``.
        size: pixels of a square image.
        grid: features of a slot, in rows and columns.
        width: D.
        slot_frames: frames of a slot: 1 for an encoder of images.
        fixed_frames: how many frames it reads at a time, if it cannot read others.
        special: tokens before those of patches, which are dropped.
        mean, std: of the colours that it was trained on.
    """

    kind: str
    size: int
    grid: tuple[int, int]
    width: int
    slot_frames: int = 1
    fixed_frames: int | None = None
    special: int = 0
    mean: tuple[float, ...] = HALF[0]
    std: tuple[float, ...] = HALF[1]

    @property
    def patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    @property
    def side(self) -> int:
        """Pixels along the square of a feature; what is left of an image behind the last of them is not seen."""
        return self.size // self.grid[0]

    def slots(self, frames: int) -> int:
        """S of so many frames."""
        return math.ceil(frames / self.slot_frames)


def shape_of(config: Any, colours: Mapping[str, Any] | None = None) -> Shape:
    """The sizes of an encoder, from the configuration of its own half.

    Args:
        config: the configuration.
        colours: ``image_mean`` and ``image_std`` of what prepares its images; without them those of its kind.

    Raises:
        UserError: of a kind that is not known to give features of patches.
    """
    kind = config.model_type
    if kind == "timm_wrapper":
        return _timm(config)
    size = getattr(config, "crop_size", None) or getattr(config, "image_size", None)
    patch: Any = getattr(config, "patch_size", None)
    if kind == "siglip2_vision_model":
        size = patch * math.isqrt(config.num_patches)
    size, patch = (side[0] if isinstance(side, list | tuple) else side for side in (size, patch))
    if not isinstance(size, int) or not isinstance(patch, int):
        raise UserError(f"vision: a model of kind {kind} does not tell its image_size and patch_size")
    usual, told = COLOURS.get(kind, IMAGENET), colours or {}
    mean, std = (tuple(told.get(f"image_{name}") or own) for name, own in zip(("mean", "std"), usual, strict=True))
    tubelet = getattr(config, "tubelet_size", 1)
    return Shape(
        kind=kind,
        size=size,
        grid=(size // patch, size // patch),
        width=config.hidden_size,
        slot_frames=tubelet,
        fixed_frames=config.num_frames if kind == "videomae" else None,
        special=SPECIAL.get(kind, 1 + config.num_register_tokens if kind == "dinov3_vit" else 0),
        mean=mean,
        std=std,
    )


def _timm(config: Any) -> Shape:
    """A convolutional network of timm, read after its last stage.

    Raises:
        UserError: of another, whose configuration does not tell where its features lie in the picture.
    """
    given = config.pretrained_cfg or {}
    grid, size = given.get("pool_size"), (given.get("input_size") or (3, 224, 224))[-1]
    if grid is None:
        raise UserError(
            f"vision: timm's {config.architecture} has no pool_size, so it is no convolutional network, and nothing "
            "tells its patches: give a transformer as transformers has it (siglip, dinov2, ...)"
        )
    width = given.get("num_features") or config.num_features
    mean, std = (tuple(given.get(name) or usual) for name, usual in zip(("mean", "std"), IMAGENET, strict=True))
    return Shape("timm_wrapper", size, (grid[0], grid[1]), width, mean=mean, std=std)
