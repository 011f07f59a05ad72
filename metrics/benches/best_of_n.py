"""How good the best of N samples is, estimated from K >= N samples without bias.

Taking the maximum of the first N would waste the others; the mean over all subsets of size N has a closed form. This
file knows scores, not what gave them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction
from math import comb


def expected_best(scores: Sequence[float], n: int) -> float:
    """Mean, over all subsets of ``n`` of the scores, of the best one of the subset (janus.md 6.4).

    With scores s sorted ascending it is the sum over j of ``s_j * C(j - 1, n - 1) / C(K, n)``: the j-th is the best of
    the subsets whose others all come before it.

    Args:
        scores: K of them, of independent samples of one prompt.
        n: size of a subset, from 1 to K.
    """
    if not 1 <= n <= len(scores):
        raise ValueError(f"the best of {n} cannot be told from {len(scores)} scores")
    return float(_expected_best(scores, n))


def _expected_best(scores: Sequence[float], n: int) -> Fraction:
    total = sum(Fraction(score) * comb(before, n - 1) for before, score in enumerate(sorted(scores)))
    return Fraction(total, comb(len(scores), n))


def best_of_n_curve(scores: Sequence[Sequence[float]], sizes: Sequence[int] | None = None) -> dict[int, float]:
    """`expected_best`, averaged over prompts, by N. Computed exactly and rounded once, it never falls with N.

    Args:
        scores: of the samples of each prompt.
        sizes: values of N; by default 1, 2, 4, ... and the number of samples, as far as every prompt has so many.
    """
    if not scores or not (most := min(map(len, scores))):
        return {}
    if sizes is None:
        sizes = [2**power for power in range(most.bit_length())]
        sizes = sizes if sizes[-1] == most else [*sizes, most]
    return {n: float(statistics.mean(_expected_best(of_prompt, n) for of_prompt in scores)) for n in sizes}
