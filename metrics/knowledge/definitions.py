"""How much one exposure to a fact teaches and how much of it stays: the definitions of arXiv 2406.11813.

Pure functions of curves l_q(t), the log-probability of a probe's target after t updates. This file knows neither files
(metrics/knowledge/trace.py) nor groups of probes (metrics/knowledge/sample.py); fits over time are in
metrics/knowledge/decay.py.

Time t is in optimizer steps; l at t is measured before update t, so an injection in the batch of update t_i shows from
t_i + 1 on. Not every t needs to be measured. What cannot be known is NaN.

Shape suffixes: T measured steps, Q probes, N exposures of a probe, G points of an elapsed-time grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def schedule_array(schedules: Sequence[Sequence[int]]) -> np.ndarray:
    """Ragged exposure times of Q probes as float64 [Q, N], padded with NaN; N is at least 1."""
    times_QN = np.full((len(schedules), max([1, *map(len, schedules)])), np.nan)
    for row, schedule in zip(times_QN, schedules, strict=True):
        row[: len(schedule)] = schedule
    return times_QN


def values_at(scores_TQ: np.ndarray, steps_T: np.ndarray, times_QN: np.ndarray) -> np.ndarray:
    """l_q at the given times, [Q, N]; NaN where a time is NaN or was not measured."""
    rows_QN = np.searchsorted(steps_T, np.nan_to_num(times_QN, nan=-1)).clip(max=len(steps_T) - 1)
    values_QN = scores_TQ[rows_QN, np.arange(scores_TQ.shape[1])[:, None]]
    return np.where(steps_T[rows_QN] == times_QN, values_QN, np.nan)


def local_acquisition_maxima(
    scores_TQ: np.ndarray, steps_T: np.ndarray, injections_QN: np.ndarray, window: int
) -> np.ndarray:
    """When each exposure has taken full effect (Definition 1): argmax of l_q over t_i < t <= t_i + window.

    The window ends early at the last measured step and at the next exposure, whose gain is not this one's; l at the
    next exposure itself still belongs to this one. Ties go to the earliest t.

    Args:
        scores_TQ: l_q(t), nats.
        steps_T: the measured t, increasing.
        injections_QN: t_i of each probe's exposures, increasing, padded with NaN.
        window: w, steps. 50 in the paper: Adam's first moment (0.9) has forgotten the batch by then.

    Returns: t_LAM, [Q, N]; NaN where the window holds no measured point.
    """
    next_QN = np.concatenate([injections_QN[:, 1:], np.full((len(injections_QN), 1), np.nan)], axis=1)
    end_QN = np.fmin(injections_QN + window, next_QN)
    t_T1 = np.asarray(steps_T)[:, None]
    lam_QN = np.full(injections_QN.shape, np.nan)
    for n in range(injections_QN.shape[1]):
        inside_TQ = (t_T1 > injections_QN[:, n]) & (t_T1 <= end_QN[:, n]) & np.isfinite(scores_TQ)
        best_Q = np.where(inside_TQ, scores_TQ, -np.inf).argmax(axis=0)
        lam_QN[:, n] = np.where(inside_TQ.any(axis=0), t_T1[best_Q, 0], np.nan)
    return lam_QN


def effectivity(
    scores_TQ: np.ndarray,
    steps_T: np.ndarray,
    injections_QN: np.ndarray,
    window: int,
    drop_failures: bool = False,
) -> np.ndarray:
    """Immediate gain of each exposure (Definition 2): l_q(t_LAM) - l_q(t_i), nats, [Q, N]. May be negative.

    Args:
        scores_TQ: l_q(t), nats.
        steps_T: the measured t.
        injections_QN: t_i, padded with NaN.
        window: w of Definition 1.
        drop_failures: leave out (NaN) the exposures after which l is still not above l before the first (appendix H).
    """
    peak_QN = values_at(scores_TQ, steps_T, local_acquisition_maxima(scores_TQ, steps_T, injections_QN, window))
    before_QN = values_at(scores_TQ, steps_T, injections_QN)
    failed_QN = peak_QN < before_QN[:, :1] if drop_failures else False
    return np.where(failed_QN, np.nan, peak_QN - before_QN)


class Acquired(NamedTuple):
    """What all exposures together have taught each probe, [Q] each; NaN where the last one was not reached.

    Attributes:
        last: t_N, the last scheduled exposure.
        peak: t_LAM of that exposure.
        before: l_q(t_pre), before the first exposure; nats.
        gain: l_q(t_LAM) - l_q(t_pre); nats.
    """

    last: np.ndarray
    peak: np.ndarray
    before: np.ndarray
    gain: np.ndarray


def acquired(scores_TQ: np.ndarray, steps_T: np.ndarray, injections_QN: np.ndarray, window: int) -> Acquired:
    """The numerator's base and the denominator of Definition 3; arguments as in `effectivity`."""
    last_Q = np.fmax.reduce(injections_QN, axis=1)
    lam_QN = local_acquisition_maxima(scores_TQ, steps_T, injections_QN, window)
    peak_Q = np.where(injections_QN == last_Q[:, None], lam_QN, -np.inf).max(axis=1, initial=-np.inf)
    peak_Q = np.where(np.isneginf(peak_Q), np.nan, peak_Q)
    before_Q = values_at(scores_TQ, steps_T, injections_QN[:, :1])[:, 0]
    gain_Q = values_at(scores_TQ, steps_T, peak_Q[:, None])[:, 0] - before_Q
    return Acquired(last_Q, peak_Q, before_Q, gain_Q)


def iqr_keep(values: np.ndarray, factor: float = 1.5, axis: int | None = None) -> np.ndarray:
    """Which values lie within [q1 - f * IQR, q3 + f * IQR], ends included; NaN never does. Under four values: all.

    Args:
        values: any shape; quartiles by linear interpolation over the finite ones.
        factor: f. 1.5 in the paper, 2.0 in its code.
        axis: filter along this axis, or all values together.
    """
    known = np.isfinite(values)
    if not known.any():
        return known
    few = known.sum(axis=axis, keepdims=True) < 4
    # All-NaN slices have no quartiles: they get one value and are masked out again by `known`.
    padded = np.where(known.any(axis=axis, keepdims=True), np.where(known, values, np.nan), 0.0)
    q1, q3 = np.nanpercentile(padded, [25, 75], axis=axis, keepdims=True)
    reach = factor * (q3 - q1)
    with np.errstate(invalid="ignore"):
        return known & (few | ((values >= q1 - reach) & (values <= q3 + reach)))


def iqr_mean(values: np.ndarray, factor: float = 1.5, axis: int | None = None) -> np.ndarray:
    """Mean of the values that `iqr_keep` keeps; NaN where none is left."""
    keep = iqr_keep(values, factor, axis)
    with np.errstate(invalid="ignore"):
        return np.where(keep, values, 0.0).sum(axis=axis) / np.float64(keep.sum(axis=axis))


def horizon(steps_T: np.ndarray, last_Q: np.ndarray, window: int) -> int:
    """Largest t since the maximum at which every probe of a group was measured: T - (t_N + window), the latest t_N.

    A maximum may lie anywhere in its window. Negative when the run ends before that; -1 for a group without exposures.
    """
    return int(steps_T[-1] - np.max(last_Q) - window) if len(last_Q) and np.isfinite(last_Q).all() else -1


def log_spaced(end: int, per_decade: int = 12) -> np.ndarray:
    """Whole steps from 1 to `end`, at most `per_decade` to a decade: decades weigh the same in a fit over log t."""
    if end < 1:
        return np.zeros(0)
    points = np.rint(10 ** (np.arange(np.ceil(per_decade * np.log10(end)) + 1) / per_decade))
    return np.unique(np.append(points[points < end], end))


def log_time(elapsed: np.ndarray) -> np.ndarray:
    """The axis along which curves are interpolated: log10 t. The maximum itself, t = 0, stands at half a step."""
    return np.log10(np.maximum(elapsed, 0.5))


def retained_gain(
    scores_TQ: np.ndarray, steps_T: np.ndarray, peak_Q: np.ndarray, before_Q: np.ndarray, elapsed_G: np.ndarray
) -> np.ndarray:
    """What is left of a gain: l_q(peak + t) - before, nats, [Q, G].

    Between measured points l is interpolated linearly in log t, where forgetting is a line; at measured points nothing
    is interpolated.

    Args:
        scores_TQ: l_q(t), nats.
        steps_T: the measured t.
        peak_Q: t_LAM of the exposure, a measured step; NaN gives NaN.
        before_Q: l_q(t_pre).
        elapsed_G: t >= 0 since the maximum; NaN is returned beyond the last measured step.
    """
    gains_QG = np.full((scores_TQ.shape[1], len(elapsed_G)), np.nan)
    for peak in np.unique(peak_Q[np.isfinite(peak_Q)]):  # probes that peak together share one interpolation
        columns = np.flatnonzero(peak_Q == peak)
        since = steps_T >= peak
        x_S, x_G = log_time(steps_T[since] - peak), log_time(elapsed_G)
        right_G = np.searchsorted(x_S, x_G).clip(max=len(x_S) - 1)
        left_G = np.where(x_S[right_G] <= x_G, right_G, np.maximum(right_G - 1, 0))
        width_G = np.where(right_G > left_G, x_S[right_G] - x_S[left_G], 1.0)
        share_G = np.where(right_G > left_G, (x_G - x_S[left_G]) / width_G, 0.0)[:, None]
        curves_SQ = scores_TQ[since][:, columns]
        values_GQ = curves_SQ[left_G] + share_G * (curves_SQ[right_G] - curves_SQ[left_G])
        values_GQ[elapsed_G > steps_T[-1] - peak] = np.nan
        gains_QG[columns] = values_GQ.T - before_Q[columns, None]
    return gains_QG


def kept_probes(gain_Q: np.ndarray, min_gain: float = 1e-3) -> np.ndarray:
    """Probes whose retainability is defined: they gained more than `min_gain` nats. NaN counts as no."""
    with np.errstate(invalid="ignore"):
        return gain_Q > min_gain


def retainability(retained_QG: np.ndarray, gain_Q: np.ndarray, min_gain: float = 1e-3) -> np.ndarray:
    """Fraction of the gain that is still there (Definition 3), [Q, G]; NaN for probes that `kept_probes` drops.

    Args:
        retained_QG: l_q(t_LAM + t) - l_q(t_pre), nats; see `retained_gain`.
        gain_Q: l_q(t_LAM) - l_q(t_pre), nats.
        min_gain: smallest gain that can be divided by.
    """
    keep_Q = kept_probes(gain_Q, min_gain)
    return np.where(keep_Q[:, None], retained_QG / np.where(keep_Q, gain_Q, 1.0)[:, None], np.nan)


def mean_of_ratios(
    retained_QG: np.ndarray, gain_Q: np.ndarray, min_gain: float = 1e-3, iqr_factor: float = 1.5
) -> np.ndarray:
    """The paper's average curve, [G]: at each t the mean over probes of R(q, t), outliers of that t left out."""
    return iqr_mean(retainability(retained_QG, gain_Q, min_gain), iqr_factor, axis=0)


def ratio_of_means(retained_QG: np.ndarray, gain_Q: np.ndarray, min_gain: float = 1e-3) -> np.ndarray:
    """The stable average curve, [G]: what all probes kept over what all had gained. Small gains cannot explode."""
    keep_Q = kept_probes(gain_Q, min_gain)
    if not keep_Q.any():
        return np.full(retained_QG.shape[1], np.nan)
    return retained_QG[keep_Q].sum(axis=0) / gain_Q[keep_Q].sum()
