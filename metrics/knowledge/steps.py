"""When probes are measured: often enough to see a fact arrive, seldom enough to pay for, all along while it fades."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def measured_steps(exposures: Iterable[int], dense_window: int, log_points_per_decade: int) -> frozenset[int]:
    """Times at which to probe: dense where knowledge is acquired, log-spaced where it is lost.

    {0}, then t_i .. t_i + dense_window of every exposure t_i, then nine decades of log-spaced points counted from the
    end of the last window, because what is retained falls linearly in log t.
    """
    exposures = set(exposures)
    dense = {t + k for t in exposures for k in range(dense_window + 1)}
    decades = np.arange(9 * log_points_per_decade + 1) / log_points_per_decade
    spaced = max(dense, default=0) + np.rint(10**decades).astype(int)
    return frozenset({0} | dense | set(spaced.tolist()))
