"""Cloze probes of facts: how likely their targets are, and whether the model says them.

It does not know when probing happens.
"""

from lm.probing.probes import ProbeSet

__all__ = [
    "ProbeSet",
]
