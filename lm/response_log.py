"""Answers that were generated once are not generated again: a log of them beside the engine.

An answer is known by the weights, the prompt's tokens, the decoding and the seed, so that a run that was broken off
goes on, and nobody is given the answers of another model. This file knows engines and samples. It does not know what
the answers are for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from lm.append_log import AppendLog
from lm.generation import Decoding, Engine, Sample
from lm.sampling import DRAWS

LOOKED_AT = 1024  # values of each weight: enough to tell two models apart, at no cost


class LoggedEngine:
    """Asks an engine only for what the folder has no answer to (`lm.protocols.Generates`).

    Args:
        engine: who generates.
        folder: where answers are kept.

    Attributes:
        found: how many prompts were answered from the log.
    """

    def __init__(self, engine: Engine, folder: str | Path):
        self.engine = engine
        self.weights = sampled_sha256(engine.model)
        self._log = AppendLog(folder, f"responses.{self.weights[:16]}", "an answer")
        self._known = {key: [_sample(one) for one in kept["samples"]] for key, kept in self._log.read().items()}
        self.found = 0

    def generate(
        self, prefixes: Sequence[Sequence[int]], k: int, decoding: Decoding, seeds: Sequence[int]
    ) -> list[Sample]:
        """``k`` samples of each prefix; see `Engine.generate`."""
        keys = [self._key(prefix, k, decoding, seed) for prefix, seed in zip(prefixes, seeds, strict=True)]
        waiting = [place for place, key in enumerate(keys) if key not in self._known]
        self.found += len(keys) - len(waiting)
        if waiting or self.engine.sharded:  # each rank of a sharded model has to take part
            fresh = self.engine.generate(
                [prefixes[place] for place in waiting], k, decoding, [seeds[place] for place in waiting]
            )
            made = {keys[place]: fresh[n * k : (n + 1) * k] for n, place in enumerate(waiting)}
            self._known |= made
            self._log.append({key: {"samples": [one._asdict() for one in samples]} for key, samples in made.items()})
        return [sample for key in keys for sample in self._known[key]]

    def _key(self, prefix: Sequence[int], k: int, decoding: Decoding, seed: int) -> str:
        asked = json.dumps([list(prefix), k, asdict(decoding), seed, DRAWS])
        return hashlib.sha256(asked.encode()).hexdigest()


def _sample(kept: dict[str, Any]) -> Sample:
    return Sample(tuple(kept["tokens"]), kept["text"], kept["finished"])


def sampled_sha256(model: nn.Module) -> str:
    """Changes with the weights: a hash over evenly spaced values of each of them, as held by this rank."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        values = (weight.to_local() if isinstance(weight, DTensor) else weight).detach().flatten()
        chosen = values[:: max(1, len(values) // LOOKED_AT)].to("cpu", torch.float32)
        digest.update(name.encode() + chosen.contiguous().numpy().tobytes())
    return digest.hexdigest()
