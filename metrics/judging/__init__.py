"""How far a judge agrees with a reference, with itself and with others (arXiv 2405.01535, section 5 and appendix).

Functions for what is at hand, torchmetrics for what comes in batches on several ranks. It does not know who judged.
"""

from metrics.judging.correlation import JudgeCorrelation, ScoreAccuracy, kendall, pearson, spearman
from metrics.judging.pairs import (
    FormatConsistency,
    PairwiseAccuracy,
    PositionConsistency,
    consistency,
    merge_orders,
    pairwise_accuracy,
)
from metrics.judging.raters import krippendorff_alpha
from metrics.judging.transitivity import Transitivity, transitivity
from metrics.judging.win_rate import WinRate

__all__ = [
    "FormatConsistency",
    "JudgeCorrelation",
    "PairwiseAccuracy",
    "PositionConsistency",
    "ScoreAccuracy",
    "Transitivity",
    "WinRate",
    "consistency",
    "kendall",
    "krippendorff_alpha",
    "merge_orders",
    "pairwise_accuracy",
    "pearson",
    "spearman",
    "transitivity",
]
