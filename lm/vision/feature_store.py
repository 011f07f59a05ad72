"""Features of an encoder that stays as it is, kept on disk: a second epoch, or run, neither decodes nor encodes.

They are found by the weights and the precision of the encoder and the key of a clip, which tells file, times and size.
Knows features as rows of numbers (lm/files/embedding_store.py); asked from the thread of a loader, too.

Legend: S slots, P features of a slot, D their width.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.backbones.kept_key import digest, model_sha256
from lm.files.embedding_store import KEY, EmbeddingStore
from lm.vision.shapes import Shape


class FeatureStore:
    """Features by the key of their clip.

    Args:
        folder: for all encoders.
        vision: the encoder.
        shape: of it.
        precision: in which it computes.

    Attributes:
        found: how many clips were there.
    """

    def __init__(self, folder: str | Path, vision: Any, shape: Shape, precision: str = "32-true"):
        self.shape, self.found = shape, 0
        own = Path(folder).expanduser() / digest(model_sha256(vision), precision)[:32]
        self._store = EmbeddingStore(own, shape.patches * shape.width)
        self._lock = Lock()
        self._written: set[str] = set()

    def get(self, key: str, slots: int) -> Tensor | None:
        """The features of a clip of so many slots [S, P, D], float32; None unless all are as they were written."""
        with self._lock:
            places = self._store.find(_keys(key, slots))
            if (places < 0).any():
                return None
            self.found += 1
            return torch.from_numpy(self._store.take(places)).view(slots, self.shape.patches, self.shape.width)

    def put(self, key: str, x: Tensor) -> None:
        """Keep the features of a clip [S, P, D]; the next run finds them, and this one in its next epoch."""
        with self._lock:
            if key in self._written:
                return
            self._written.add(key)
            self._store.append(_keys(key, len(x)), x.detach().float().flatten(1).cpu().numpy())
            self._store.reload()


def _keys(key: str, slots: int) -> np.ndarray:
    digests = [hashlib.blake2b(f"{key} {slot}".encode(), digest_size=KEY).digest() for slot in range(slots)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(slots, KEY)
