"""Benchmarks that are judged by rubrics: what is asked, how a judge is asked, what it comes to.

It does not know where answers come from.
"""

from lm.benches.biggen import CapabilityBench
from lm.benches.multifaceted import RubricBench
from lm.benches.video_axes import AxesBench

__all__ = [
    "AxesBench",
    "CapabilityBench",
    "RubricBench",
]
