"""Features of an encoder that stays as it is, kept on disk: a second epoch, or training run, needs no video.

What is kept of a clip is one file, named by the clip's key, which tells file, times and size; in a folder that is named
by all of the encoder that decides them. It also holds what was seen beside features (`KeptClip`), so that the clip is
laid out again as it was, whatever the budget is by then. Asked from the thread of a loader, too.

Legend: S slots, P features of a slot, D their width.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.backbones.kept_key import digest, model_sha256
from lm.vision.batch import Clip, KeptClip
from lm.vision.sight import Sight
from text.whole_files import whole_file


class FeatureStore:
    """Features by the key of their clip.

    Args:
        folder: for all encoders.
        vision: the encoder.
        sight: how it is shown frames.
        precision: in which it computes.
    """

    def __init__(self, folder: str | Path, vision: Any, sight: Sight, precision: str = "32-true"):
        own = digest(model_sha256(vision), precision, sight.shape, sight.pairs)
        self.folder = Path(folder).expanduser() / own[:32]

    def get(self, key: str) -> KeptClip | None:
        """What is kept of a clip; None unless all of it is there as it was written."""
        try:
            with np.load(self._path(key), allow_pickle=False) as found:  # which checks a checksum of each array
                features = torch.from_numpy(found["features"])
                length, replaced = found["length"].item(), found["replaced"].item()
                return KeptClip(features, found["times"], found["looks"], length, replaced)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, clip: Clip, x: Tensor) -> None:
        """Keep a clip with its features [S, P, D], as float32, unless it is kept: whoever answers sees it anew."""
        if self.get(clip.key) is not None:
            return
        path = self._path(clip.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = KeptClip(x.detach().float().cpu(), clip.times, clip.looks, clip.length, clip.replaced)
        with whole_file(path) as partial, partial.open("wb") as file:  # ranks that show the same clip write the same
            np.savez(file, **kept._asdict())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"
