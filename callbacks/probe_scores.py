"""The probes of a run's facts, and what its model scores on them.

Scoring leaves no mark on training: no dropout, no gradients, no random numbers, modes put back. This file does not know
when probes are scored (callbacks/knowledge_probing.py), nor how one is (lm/probing/).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lm.backbones.evaluating import evaluating
from lm.probing.greedy_checks import CHECKS, check_probes, check_scalars
from lm.probing.probes import ProbeSet
from lm.protocols import HasFacts, ScoresForests
from text.errors import UserError


class ProbeScores:
    """Scores the probes of the facts that a trainer's datamodule has, with its model, on every rank alike.

    Args:
        span_reduction: what is told of a probe: mean or sum over the tokens of its target.
        build: options of `ProbeSet.build`.

    Attributes:
        probes: what is asked, once `ask` was called.
    """

    probes: ProbeSet

    def __init__(self, span_reduction: Literal["mean", "sum"], **build: Any):
        self.span_reduction = span_reduction
        self.build = build

    def ask(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lays the probes out.

        Raises:
            UserError: if there are no facts, or the model does not score forests.
        """
        data = trainer.datamodule
        if not isinstance(data, HasFacts) or data.facts is None:
            raise UserError("KnowledgeProbing has no facts to probe: give the data a 'knowledge' source of records")
        if not isinstance(pl_module, ScoresForests):
            raise UserError(f"KnowledgeProbing needs a model with forest_logprobs, not {type(pl_module).__name__}")
        self.probes = ProbeSet.build(data.facts, data.tokenizer, shards=trainer.world_size, **self.build)

    def score(self, trainer: Trainer, pl_module: LightningModule) -> np.ndarray:
        """Scores [Q, C] of every probe."""
        model = cast(ScoresForests, pl_module)
        with _unnoticed(trainer, pl_module):
            return self.probes.score(
                lambda forest: model.forest_logprobs(forest.to(pl_module.device)),
                trainer.global_rank,
                trainer.world_size,
                partial(gathered, pl_module),
            )

    def means(self, scores_QC: np.ndarray) -> dict[str, float]:
        """Mean log-probability of a target, by "scenario/type"."""
        return self.probes.cells(scores_QC[:, self.probes.channels.index(f"target_{self.span_reduction}")])

    def check(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Lets the model say each target; the means are printed and are among the run's final metrics."""
        module: Any = pl_module
        with _unnoticed(trainer, pl_module):
            found_Q2 = check_probes(
                self.probes,
                module.model,
                module.tokenizer,
                trainer.global_rank,
                trainer.world_size,
                partial(gathered, pl_module),
            )
        scalars = check_scalars(self.probes, found_Q2)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scalars.items()})
        if trainer.is_global_zero:
            match, place = (scalars[f"probe/{name}"] for name in CHECKS)
            print(f"Targets that the model says by itself: {match:.1%}; mean rank of a target's tokens: {place:.1f}")
        return scalars


@contextmanager
def _unnoticed(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """As an evaluation, of which training will not know."""
    with evaluating(pl_module), isolate_rng(), trainer.precision_plugin.forward_context():
        yield


def gathered(pl_module: LightningModule, scores_QC: Tensor) -> Tensor:
    """The scores of every rank, [W, Q, C], on every rank."""
    found = cast(Tensor, pl_module.all_gather(scores_QC.to(pl_module.device)))
    return found.reshape(-1, *scores_QC.shape)  # a single rank gets its own back without the first dimension
