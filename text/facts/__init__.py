"""Facts that a model is told: records, parts they play, passages that carry them.

It does not know tokens.
"""

from text.facts.knowledge import Fact, Facts

__all__ = [
    "Fact",
    "Facts",
]
