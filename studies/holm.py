"""Several claims on the same runs: each of m true nulls has its chance of a verdict by luck, so together they share it.

Holm (1979): sorted upwards, the k-th of m p-values is multiplied by m - k + 1, and none becomes smaller than the one
before it. The chance that any claim whose null is true gets a verdict stays at what one claim alone would have, however
claims depend on one another; those of a study share arms and seeds. This file knows p-values. It does not know where
they come from (verdict.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given.

    A claim that could not be tested (NaN) counts among the m, and stays without a p-value.
    """
    m, largest = len(p_values), 0.0
    corrected = [math.nan] * m
    for k, place in enumerate(sorted(range(m), key=lambda i: (math.isnan(p_values[i]), p_values[i]))):
        if not math.isnan(p_values[place]):
            largest = max(largest, min(1.0, (m - k) * p_values[place]))
            corrected[place] = largest
    return corrected
