"""How often questions are answered rightly, and how well wrong steps are found.

It does not know how solutions were sampled.
"""

from metrics.reasoning.exploration import KnowsErrors
from metrics.reasoning.reasoning import AnswerAccuracy, MajorityAtK, PassAtK

__all__ = [
    "AnswerAccuracy",
    "KnowsErrors",
    "MajorityAtK",
    "PassAtK",
]
