"""From pixels to features: the forward of an encoder over the frames of several clips, and pixels as it wants them.

Clips differ in length, so their frames stand one after the other; what reads several frames at a time reads those of
one clip. A clip that does not fill its last slot or chunk shows its last frame again; what comes of that is dropped.

Legend: F frames of all clips, T frames of one, S slots of all clips, P features of a slot, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lm.vision.shapes import Shape
from text.errors import UserError

TOGETHER = 64  # frames that are encoded at a time
CHUNK = 16  # frames that an encoder of videos reads at a time, where it can read any number


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """A frame as a small square: the shorter side is made `size` long, and the middle of the longer one is kept.

    Args:
        image: uint8 [H, W, 3].
        size: pixels.

    Returns: uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    scale = size / min(height, width)
    shape = max(size, round(height * scale)), max(size, round(width * scale))
    frame = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    frame = F.interpolate(frame, shape, mode="bilinear", antialias=True, align_corners=False).round_().clamp_(0, 255)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return frame[0, :, top : top + size, left : left + size].byte().permute(1, 2, 0).numpy()


def features(model: Any, shape: Shape, pixels: Tensor, counts: Sequence[int], pairs: bool = False) -> Tensor:
    """What an encoder makes of clips.

    Args:
        model: the encoder.
        shape: of it.
        pixels: uint8 [F, 3, H, W], the clips one after the other.
        counts: frames of each clip, at least 1.
        pairs: see `VisionBackbone`; a slot for every frame.

    Returns: [S, P, D].

    Raises:
        UserError: for an encoder of images that gives something else than its configuration says.
    """
    if shape.slot_frames == 1 and shape.fixed_frames is None:
        return torch.cat([_of_images(model, shape, part) for part in pixels.split(TOGETHER)])
    if pairs:
        clips = pixels.split(list(counts))
        before = torch.cat([torch.cat([clip[:1], clip[:-1]]) for clip in clips])
        chunks = torch.stack([before, pixels], dim=1)
        return torch.cat([_of_chunks(model, shape, part) for part in chunks.split(TOGETHER // 2)]).flatten(0, 1)
    return torch.cat([_of_clip(model, shape, clip) for clip in pixels.split(list(counts))])


def _normal(model: Any, shape: Shape, pixels: Tensor) -> Tensor:
    """Pixels [..., 3, H, W] in the numbers that an encoder reads; of what it reads at a time, for they are large."""
    mean, std = (torch.tensor(c, device=pixels.device).view(3, 1, 1) for c in (shape.mean, shape.std))
    return ((pixels.float() / 255 - mean) / std).to(next(model.parameters()).dtype)


def _of_images(model: Any, shape: Shape, pixels: Tensor) -> Tensor:
    frames = _normal(model, shape, pixels)
    if shape.kind == "siglip2_vision_model":
        states = model(**_patches(frames, shape)).last_hidden_state
    else:
        states = model(pixel_values=frames).last_hidden_state
    convolved = states.ndim == 4  # channels, rows, columns
    found = states.flatten(2).transpose(1, 2) if convolved else states[:, shape.special :]
    if found.shape[1:] != (shape.patches, shape.width):
        rows, columns = shape.grid
        raise UserError(
            f"vision: {type(model).__name__} gives features of the form {tuple(states.shape[1:])}, and its "
            f"configuration tells of {rows} x {columns} of width {shape.width}: this encoder is not known here"
        )
    return found


def _patches(frames: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Frames as SigLIP 2 reads images of any form: patch by patch."""
    side = shape.side
    patches = F.unfold(frames, side, stride=side).transpose(1, 2)  # colours, rows, columns
    patches = patches.unflatten(2, (3, side * side)).transpose(2, 3).flatten(2)
    grids = torch.tensor([shape.grid] * len(frames), device=frames.device)
    mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=frames.device)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": grids}


def _of_clip(model: Any, shape: Shape, clip: Tensor) -> Tensor:
    """One clip, in chunks."""
    long = shape.fixed_frames or CHUNK
    wanted = shape.slots(len(clip))
    missing = -len(clip) % (long if shape.fixed_frames else shape.slot_frames)
    clip = torch.cat([clip, clip[-1:].expand(missing, -1, -1, -1)])
    found = [_of_chunks(model, shape, part[None])[0] for part in clip.split(long)]
    return torch.cat(found)[:wanted]


def _of_chunks(model: Any, shape: Shape, chunks: Tensor) -> Tensor:
    """Chunks of equally many frames [B, T, 3, H, W] -> [B, S, P, D]."""
    chunks = _normal(model, shape, chunks)
    if shape.kind == "vjepa2":
        states = model(pixel_values_videos=chunks, skip_predictor=True).last_hidden_state
    else:
        states = model(pixel_values=chunks).last_hidden_state
    return states[:, shape.special :].unflatten(1, (-1, shape.patches))
