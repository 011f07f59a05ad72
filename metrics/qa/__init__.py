"""What answers to open-domain questions are worth, and whether the passages that were found hold them.

It does not know who answered or searched.
"""

from metrics.qa.answers import answer_accuracy, exact_match, token_f1
from metrics.qa.passages import answer_ranks, gold_ranks, passage_scores

__all__ = [
    "answer_accuracy",
    "answer_ranks",
    "exact_match",
    "gold_ranks",
    "passage_scores",
    "token_f1",
]
