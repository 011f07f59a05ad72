"""An encoder from scratch learns to see before it is asked anything, without labels: in place of published weights.

Every slot of frames has to tell the pixels of its last frame, part of which it was not shown (as in masked
autoencoders, arXiv 2111.06377); and, if it is of two frames, by how many pixels what stands out has moved between them.
The first is of stills, the second of motion; which of them an answer needs is a question for a study. This file knows
pixels and features. It does not know questions.

Legend: F frames of all clips, S slots, P features of a slot, D their width, C numbers of a patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm.vision.batch import Clip, VideoBatch
from lm.vision.features import features
from modules.pegasus.pegasus import Pegasus
from text.errors import UserError

STANDS_OUT = 40.0  # grey levels by which a pixel differs from its frame's median
SAME_COLOUR = 30.0  # grey levels by which what stands out may differ between frames: else it is something else


class VisionWarmUp(Pegasus):
    """Trains the part ``vision`` of a Pegasus; ``model`` and ``aligner`` are there, and frozen.

    Args:
        backbone: see Pegasus; so are other arguments.
        masked: share of the patches of a frame that the encoder does not see.
        motion: weight of the displacement in the loss; 0 learns stills alone.
    """

    def __init__(self, *args: Any, masked: float = 0.3, motion: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not 0 <= masked < 1 or motion < 0:
            raise UserError(f"model: 'masked' is {masked} and 'motion' {motion}: a share below 1, and 0 or more")
        if self.sees_fixed:
            raise UserError("model: parts.vision is frozen, and nothing else is trained here")
        self.masked, self.motion = masked, motion

    def build_head(self) -> None:
        """What tells pixels and displacement."""
        super().build_head()
        shape = self.sight.shape
        self.pixels = nn.Linear(shape.width, 3 * shape.side**2)
        self.displacement = nn.Linear(shape.width, 2) if shape.slot_frames == 2 and self.motion else None

    def training_step(self, batch: VideoBatch, batch_idx: int) -> Tensor:
        """Mean squared errors of standardised pixels, and of displacements in tenths of a picture."""
        losses = self.losses(batch.clips)
        self.count_tokens(len(losses))
        return self.global_mean(losses)

    def validation_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """``val/loss``: the same over held-out clips."""
        self.log_for("val", "loss", self.losses(batch.clips))

    def losses(self, clips: list[Clip]) -> Tensor:
        """The loss of every slot [S]. Without any, the encoder runs all the same: ranks keep step."""
        if not clips:
            return self.losses([self._blank])[:0]
        shown = torch.cat([clip.pixels for clip in clips])
        counts = [len(clip.pixels) for clip in clips]
        shape, sight = self.sight.shape, self.sight
        x = features(self.vision, shape, self._hidden(shown), counts, sight.pairs)
        last = self._last_frames(shown, counts)
        wanted = F.unfold(standardised(shown[last]), shape.side, stride=shape.side).transpose(1, 2)
        losses = (self.pixels(x) - wanted).square().mean((1, 2))
        if self.displacement is None:
            return losses
        before = torch.where(torch.isin(last, self._alone(counts).to(last.device)), last, last - 1)
        moved, known = displacements(shown[before], shown[last])
        errors = (self.displacement(x.mean(1)) - moved / (shape.size / 10)).square().mean(1)
        return losses + self.motion * errors * known

    def _last_frames(self, shown: Tensor, counts: list[int]) -> Tensor:
        """The number of each slot's last frame among all frames [S]."""
        step, found, begin = self.sight.slot_frames, [], 0
        for count in counts:
            found += [begin + min(at + step, count) - 1 for at in range(0, count, step)]
            begin += count
        return torch.tensor(found, device=shown.device)

    def _alone(self, counts: list[int]) -> Tensor:
        """The numbers of frames that, at the end of a slot, are all that it shows."""
        step, begins = self.sight.slot_frames, [sum(counts[:n]) for n in range(len(counts))]
        if step == 1:  # of pairs: the first of a clip
            return torch.tensor(begins)
        return torch.tensor([n + at for n, count in zip(begins, counts, strict=True) for at in range(0, count, step)])

    def _hidden(self, shown: Tensor) -> Tensor:
        """Frames of which some patches are grey [F, 3, H, W]."""
        if not self.masked or not self.training:
            return shown
        shape = self.sight.shape
        hidden = torch.rand(len(shown), 1, *shape.grid, device=shown.device) < self.masked
        hidden = hidden.repeat_interleave(shape.side, 2).repeat_interleave(shape.side, 3)
        rest = [shape.size - length for length in hidden.shape[2:]]  # which the encoder does not look at
        hidden = F.pad(hidden, (0, rest[1], 0, rest[0]))
        return torch.where(hidden, torch.full_like(shown, 127), shown)


def standardised(frames: Tensor) -> Tensor:
    """Frames without their mean colour, in standard deviations [S, 3, H, W], float32.

    In shares of the range a shape differs from the ground by so little that features which are all but constant tell
    it, and nothing that is trained on them later sees it (masked autoencoders, too, learn more from normalised pixels:
    arXiv 2111.06377, table 1d; theirs are normalised by patch, which would lose the colour).
    """
    values = frames.float()
    values = values - values.mean((2, 3), keepdim=True)
    return values / values.std((1, 2, 3), keepdim=True).clamp(min=1)  # a grey level: of an even frame nothing is made


def displacements(before: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
    """By how many pixels what stands out has moved, to the right and down.

    Args:
        before: uint8 [S, 3, H, W].
        behind: of the same size.

    Returns: [S, 2], float32; and 1 where both frames show something of one colour, else 0 [S].
    """
    (places, colours, there), (places_2, colours_2, there_2) = _standing_out(before), _standing_out(behind)
    same = (colours - colours_2).abs().amax(1) < SAME_COLOUR
    return places_2 - places, (same & there & there_2).float()


def _standing_out(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The centre [S, 2] and the mean colour [S, 3] of the pixels that stand out, and whether there are any [S]."""
    values = frames.float()
    medians = values.flatten(2).median(2)[0][..., None, None]
    mask = ((values - medians).abs().amax(1) > STANDS_OUT).float()
    size = mask.sum((1, 2)).clamp(min=1)
    rows = torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32)
    columns = torch.arange(mask.shape[2], device=mask.device, dtype=torch.float32)
    x, y = (mask.sum(1) @ columns) / size, (mask.sum(2) @ rows) / size
    colours = (values * mask[:, None]).sum((2, 3)) / size[:, None]
    return torch.stack([x, y], 1), colours, mask.sum((1, 2)) >= 4
