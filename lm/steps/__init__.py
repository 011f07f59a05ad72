"""Optimizer steps: exact means over micro-batches and ranks, schedules, sharding strategies, what is not finite.

It does not know models or batches.
"""

from lm.steps.gather import gather_rows
from lm.steps.schedules import EpochDecay, Warmup
from lm.steps.step_mean import StepMean
from lm.steps.strategies import FullySharded

__all__ = [
    "EpochDecay",
    "FullySharded",
    "StepMean",
    "Warmup",
    "gather_rows",
]
