"""Aligners: from features of an encoder to vectors in the space of a language model's embeddings, and fewer of them.

`Aligner` is the description, as plain values; it builds the layers, and knows how many vectors come of how many slots
without them. Vectors of a slot are in the order of rows and columns.

Legend: S slots of all clips, P = h x w features of a slot, D their width, O slots that come out, k vectors of each, E
width of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm.vision.times import TimeEmbedding, TimeEncoding
from text.errors import UserError

Kind = Literal["pool", "pixel_shuffle", "resampler", "conv"]


@dataclass(frozen=True)
class Aligner:
    """How features become vectors.

    Args:
        kind: ``pool`` averages squares of features (LLaVA-NeXT-Video); ``pixel_shuffle`` puts them one behind the other
            (Qwen2-VL, InternVL), so that nothing is averaged away; ``resampler`` asks with learned queries (Flamingo,
            arXiv 2204.14198); ``conv`` is VideoLLaMA 2's convolution over space and time (arXiv 2406.07476).
        stride: side of such a square.
        latents: vectors that a resampler makes of a chunk of slots.
        chunk: slots of such a chunk.
        depth: layers of a resampler.
        width: of a resampler.
        heads: of a resampler.
        time: what is added to features to tell when they were seen: ``relative`` to the length, ``absolute`` seconds,
            ``both`` or ``none``. It begins at zero.
        mixer: ``conv`` adds what a convolution over neighbouring slots finds at each place; it begins at zero.
    """

    kind: Kind = "pool"
    stride: int = 2
    latents: int = 64
    chunk: int = 16
    depth: int = 3
    width: int = 256
    heads: int = 8
    time: TimeEncoding = "relative"
    mixer: Literal["none", "conv"] = "none"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        for name in ("stride", "latents", "chunk", "depth", "width", "heads"):
            if getattr(self, name) < 1:
                raise UserError(f"aligner: '{name}' is {getattr(self, name)}: it must be 1 or more")
        if self.kind == "resampler" and self.width % self.heads:
            raise UserError(f"aligner: {self.heads} heads cannot share a width of {self.width}")

    def reduced(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of what is left of a slot."""
        if self.kind == "conv":
            return max(1, grid[0] // 2), max(1, grid[1] // 2)
        return math.ceil(grid[0] / self.stride), math.ceil(grid[1] / self.stride)

    def out_slots(self, slots: int) -> int:
        """O of a clip of so many slots."""
        if self.kind == "conv":
            return math.ceil(slots / 2)
        return math.ceil(slots / self.chunk) if self.kind == "resampler" else slots

    def per_slot(self, grid: tuple[int, int]) -> int:
        """K."""
        return self.latents if self.kind == "resampler" else math.prod(self.reduced(grid))

    def num_tokens(self, slots: int, grid: tuple[int, int]) -> int:
        """Vectors of a clip."""
        return self.out_slots(slots) * self.per_slot(grid)

    def slot_groups(self, slots: int) -> list[range]:
        """Which slots of a clip each slot that comes out is made of."""
        if self.kind == "resampler":
            return [range(at, min(at + self.chunk, slots)) for at in range(0, slots, self.chunk)]
        if self.kind == "conv":
            return [range(2 * at, min(2 * at + 2, slots)) for at in range(self.out_slots(slots))]
        return [range(at, at + 1) for at in range(slots)]

    def build(self, width_in: int, grid: tuple[int, int], width_out: int) -> AlignerLayers:
        """The layers, with random weights."""
        kinds = {"pool": Pool, "pixel_shuffle": PixelShuffle, "resampler": Resampler, "conv": SpaceTimeConv}
        return kinds[self.kind](self, width_in, grid, width_out)


class AlignerLayers(nn.Module):
    """What all kinds begin with: time, and motion between neighbouring slots.

    Args:
        options: the description.
        width_in: D.
        grid: h and w.
        width_out: E.
    """

    def __init__(self, options: Aligner, width_in: int, grid: tuple[int, int], width_out: int):
        super().__init__()
        self.options, self.grid = options, grid
        self.time = TimeEmbedding(options.time, width_in)
        self.mixer = SlotMixer(width_in) if options.mixer == "conv" else None

    def forward(self, x: Tensor, seconds: Tensor, lengths: Tensor, counts: Sequence[int]) -> Tensor:
        """The vectors of all clips, one after the other [N, E].

        Args:
            x: features [S, P, D].
            seconds: of each slot [S].
            lengths: of the clip of each slot, seconds [S].
            counts: slots of each clip.
        """
        if self.mixer is not None:
            x = torch.cat([self.mixer(clip) for clip in x.split(list(counts))])
        x = x + self.time(seconds, lengths)[:, None].to(x.dtype)
        return self.align(x, counts)

    def align(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """From features that know their time to vectors."""
        raise NotImplementedError


class SlotMixer(nn.Module):
    """A residual convolution over three neighbouring slots at each place, zero at its beginning."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(width), nn.Conv1d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, clip: Tensor) -> Tensor:
        """[S, P, D] of one clip -> the same."""
        return clip + self.conv(self.norm(clip).permute(1, 2, 0)).permute(2, 0, 1)


def projector(width_in: int, width_out: int) -> nn.Sequential:
    """A norm and two layers, as in LLaVA."""
    return nn.Sequential(
        nn.LayerNorm(width_in), nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out)
    )


class Pool(AlignerLayers):
    """Means of squares of features; at an edge, of what is left of a square."""

    def __init__(self, options: Aligner, width_in: int, grid: tuple[int, int], width_out: int):
        super().__init__(options, width_in, grid, width_out)
        self.project = projector(width_in, width_out)

    def align(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """[S, P, D] -> [S k, E]."""
        maps = x.transpose(1, 2).unflatten(2, self.grid)
        pooled = F.avg_pool2d(maps, self.options.stride, ceil_mode=True, count_include_pad=False)
        return self.project(pooled.flatten(2).transpose(1, 2).flatten(0, 1))


class PixelShuffle(AlignerLayers):
    """Squares of features side by side in one vector; at an edge the last ones are repeated."""

    def __init__(self, options: Aligner, width_in: int, grid: tuple[int, int], width_out: int):
        super().__init__(options, width_in, grid, width_out)
        self.project = projector(width_in * options.stride**2, width_out)

    def align(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """[S, P, D] -> [S k, E]."""
        side, (rows, columns) = self.options.stride, self.grid
        maps = x.transpose(1, 2).unflatten(2, self.grid)
        maps = F.pad(maps, (0, -columns % side, 0, -rows % side), mode="replicate")
        return self.project(F.unfold(maps, side, stride=side).transpose(1, 2).flatten(0, 1))


class Resampler(AlignerLayers):
    """Learned queries read a chunk of slots. They begin apart: equal ones would stay equal for ever."""

    def __init__(self, options: Aligner, width_in: int, grid: tuple[int, int], width_out: int):
        super().__init__(options, width_in, grid, width_out)
        width = options.width
        self.enter = nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, width))
        self.places = nn.Parameter(torch.randn(grid[0] * grid[1], width) * 0.02)
        self.latents = nn.Parameter(torch.randn(options.latents, width) * 0.02 * width**0.5)
        self.layers = nn.ModuleList(ResamplerLayer(width, options.heads) for _ in range(options.depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width_out))

    def align(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """[S, P, D] -> [O latents, E]."""
        entered = self.enter(x) + self.places
        made = []
        for clip in entered.split(list(counts)):
            for chunk in clip.split(self.options.chunk):
                z = self.latents[None]
                for layer in self.layers:
                    z = layer(z, chunk.flatten(0, 1)[None])
                made.append(z[0])
        return self.leave(torch.cat(made))


class ResamplerLayer(nn.Module):
    """Queries attend to features and to one another, then each is transformed (Flamingo, section 3.1.1)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.of_queries, self.of_features = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.transform = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, z: Tensor, features: Tensor) -> Tensor:
        """[1, latents, width] and [1, features, width] -> [1, latents, width]."""
        query = self.of_queries(z)
        seen = torch.cat([self.of_features(features), query], dim=1)
        z = z + self.attention(query, seen, seen, need_weights=False)[0]
        return z + self.transform(z)


class SpaceTimeConv(AlignerLayers):
    """Halves rows, columns and slots by a convolution between residual ones; an odd last slot is shown twice."""

    def __init__(self, options: Aligner, width_in: int, grid: tuple[int, int], width_out: int):
        super().__init__(options, width_in, grid, width_out)
        self.norm = nn.LayerNorm(width_in)
        self.enter = nn.Conv2d(width_in, width_out, 1)
        steps = (2, min(2, grid[0]), min(2, grid[1]))
        self.halve = nn.Conv3d(width_out, width_out, steps, stride=steps)
        self.before, self.behind = _residual(width_out), _residual(width_out)
        self.project = nn.Sequential(nn.Linear(width_out, width_out), nn.GELU(), nn.Linear(width_out, width_out))

    def align(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """[S, P, D] -> [O k, E]."""
        made = []
        for clip in self.norm(x).split(list(counts)):
            clip = torch.cat([clip, clip[-1:]]) if len(clip) % 2 else clip
            maps = self.enter(clip.transpose(1, 2).unflatten(2, self.grid))
            maps = maps + self.before(maps)
            halved = F.silu(self.halve(maps.transpose(0, 1)[None]))[0].transpose(0, 1)
            halved = halved + self.behind(halved)
            made.append(self.project(halved.flatten(2).transpose(1, 2).flatten(0, 1)))
        return torch.cat(made)


def _residual(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
