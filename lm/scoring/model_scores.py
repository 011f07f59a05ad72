"""Scoring functions: a model that says how likely it finds a forest, and is asked without a trace.

Whoever scores (a policy, a frozen copy of it, the policy with its adapters switched off) is asked in the same way:
training modes, adapters and random numbers are as before afterwards, also when something breaks. Knows models and
forests. It does not know what the numbers are for.

Legend: N predictions, P paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lm.backbones.evaluating import evaluating
from lm.forests.forest import Forest
from lm.scoring.logprobs import SharePrefixes, forest_logprobs, path_sums


class ModelScores:
    """The scoring function of a model.

    Args:
        model: as `lm.scoring.logprobs.forest_logprobs` takes it; it may be in training.
        switch: the context in which the model is the one that is asked, such as `lm.scoring.reference.adapters_off`;
            None for the model as it is.
        share_prefixes: see `lm.scoring.logprobs.forest_logprobs`.
    """

    def __init__(
        self,
        model: Any,
        switch: Callable[[Any], AbstractContextManager[None]] | None = None,
        share_prefixes: SharePrefixes = "auto",
    ):
        self.model, self.switch, self.share_prefixes = model, switch, share_prefixes

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return next(self.model.parameters()).device

    @contextmanager
    def at_work(self) -> Iterator[Any]:
        """Within it the model is the one that is asked, in eval mode, without gradients; yields it."""
        devices = [self.device] if self.device.type == "cuda" else []
        switched = nullcontext() if self.switch is None else self.switch(self.model)
        with torch.random.fork_rng(devices), evaluating(self.model), switched:
            yield self.model

    def __call__(self, forest: Forest) -> Tensor:
        """Log-probs of all predictions of a forest, wherever it is: constants, nats, [N]."""
        with self.at_work() as model:
            return forest_logprobs(model, forest.to(self.device), self.share_prefixes)

    def path_logprobs(self, forest: Forest) -> Tensor:
        """Sum of the log-probs of each path, a constant, nats, [P]."""
        return path_sums(self(forest), forest.to(self.device))
