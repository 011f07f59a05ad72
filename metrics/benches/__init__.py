"""Scores of benchmarks, from verdicts to the report.

It does not know who judged.
"""

from metrics.benches.best_of_n import expected_best
from metrics.benches.capability import CapabilityScore, aggregate
from metrics.benches.toxicity import Toxicity

__all__ = [
    "CapabilityScore",
    "Toxicity",
    "aggregate",
    "expected_best",
]
