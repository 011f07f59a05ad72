"""Weights of several models become one model: formulas, folders, adapters, and a merged backbone.

It does not know training.
"""

from lm.merging.folders import merge
from lm.merging.merged_backbone import MergedBackbone
from lm.merging.rules import Recipe

__all__ = [
    "MergedBackbone",
    "Recipe",
    "merge",
]
