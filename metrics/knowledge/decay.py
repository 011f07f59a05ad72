"""Forgetting as a line over log time, and the exponential it is compared with.

R(t) = b - a log10 t is the form of arXiv 2406.11813, equation 4: the decay constant a is the fraction lost per
tenfold time, and tau = 10^(b/a) is when nothing is left. This file knows curves; how they come about is in
metrics/knowledge/definitions.py.

Shape suffixes: G points in time, B curves fitted together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


@dataclass(frozen=True)
class DecayFit:
    """R(t) = b - a log10 t by ordinary least squares, beside R(t) = c exp(-k t).

    Attributes:
        a: decay constant, fraction lost per decade of t.
        b: R at t = 1.
        r2: 1 - SSR / SST.
        se_a: standard error of a.
        tau_steps: 10^(b / a), where the line meets zero (the "learnability threshold"); infinite when a <= 0.
        tau_tokens: the same in training tokens. The slope does not depend on the unit, the intercept does.
        log10_tau_tokens: finite where tau itself overflows.
        no_decay: the line does not fall.
        n: points in the fit.
        rmse: of the line, in units of R.
        c: of the exponential, fitted by least squares as the line is, so that their RMSE compare.
        k: of the exponential, per step.
        rmse_exponential: on the same points.
        better: "log" or "exponential", by RMSE.
    """

    a: float
    b: float
    r2: float
    se_a: float
    tau_steps: float
    tau_tokens: float
    log10_tau_tokens: float
    no_decay: bool
    n: int
    rmse: float
    c: float
    k: float
    rmse_exponential: float
    better: str | None


def every_step(elapsed_G: np.ndarray, curve_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve at every whole step from 1 on, linear in log t between its points; the paper measured them all."""
    known = np.isfinite(curve_G) & (elapsed_G >= 1)
    if not known.any():
        return np.zeros(0), np.zeros(0)
    t = np.arange(np.ceil(elapsed_G[known][0]), np.floor(elapsed_G[known][-1]) + 1)
    return t, np.interp(np.log10(t), np.log10(elapsed_G[known]), curve_G[known])


def fit_decay(elapsed_G: np.ndarray, curve_G: np.ndarray, tokens_per_step: float = 1.0) -> DecayFit:
    """Fit one curve; NaN points and those before t = 1 are left out. With fewer than two points all is NaN.

    Args:
        elapsed_G: t since the maximum, steps.
        curve_G: R(t).
        tokens_per_step: global batch size times sequence length.
    """
    use = np.isfinite(curve_G) & (elapsed_G >= 1)
    t, curve = np.asarray(elapsed_G, np.float64)[use], np.asarray(curve_G, np.float64)[use]
    if len(t) < 2:
        nan = np.nan
        return DecayFit(nan, nan, nan, nan, nan, nan, nan, False, len(t), nan, nan, nan, nan, None)
    line = stats.linregress(np.log10(t), curve)
    a, b = -line.slope, line.intercept
    log10_tau = b / a if a > 0 else np.inf
    rmse = _rmse(curve, b - a * np.log10(t))
    c, k, rmse_exponential = _exponential(t, curve)
    log10_tau_tokens = log10_tau + np.log10(tokens_per_step)
    return DecayFit(
        a=float(a),
        b=float(b),
        r2=float(line.rvalue**2),
        se_a=float(line.stderr),
        tau_steps=_power_of_ten(log10_tau),
        tau_tokens=_power_of_ten(log10_tau_tokens),
        log10_tau_tokens=float(log10_tau_tokens),
        no_decay=bool(a <= 0),
        n=len(t),
        rmse=rmse,
        c=c,
        k=k,
        rmse_exponential=rmse_exponential,
        better="exponential" if rmse_exponential < rmse else "log",
    )


def lines(elapsed_G: np.ndarray, curves_BG: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b and R2 of many curves on one time grid, [B] each: the same line as `fit_decay`, for bootstrap draws."""
    x_G = np.log10(elapsed_G)
    centred_G = x_G - x_G.mean()
    mean_B = curves_BG.mean(axis=1)
    slope_B = curves_BG @ centred_G / (centred_G @ centred_G)
    spread_BG = curves_BG - mean_B[:, None]
    residual_B = ((spread_BG - slope_B[:, None] * centred_G) ** 2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2_B = 1 - residual_B / (spread_BG**2).sum(axis=1)
    return -slope_B, mean_B - slope_B * x_G.mean(), r2_B


def tau_angles(a_B: np.ndarray, b_B: np.ndarray) -> np.ndarray:
    """A stand-in for tau of which percentiles can be taken, where some lines never meet zero, [B].

    The angle of (b, a): log10 tau = b / a is its cotangent. It is bounded and falls as tau rises, to 0 where tau is
    infinite.
    """
    return np.where(a_B <= 0, 0 * a_B, np.arctan2(a_B, b_B))


def tau_of_angle(angle: float) -> float:
    """Tau in steps, from the angle of `tau_angles`."""
    return np.inf if angle == 0 else _power_of_ten(1 / np.tan(angle))


def _exponential(t: np.ndarray, curve: np.ndarray) -> tuple[float, float, float]:
    """Least squares in R: c, k and the RMSE. For each k the best c is known: a grid of k says where to begin."""
    since, length = t - t[0], np.ptp(t)
    rates = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 61), -np.geomspace(1e-3, 10, 41)]) / length
    falling_KG = np.exp(-rates[:, None] * since)
    height_K = falling_KG @ curve / (falling_KG**2).sum(axis=1)
    best = int(np.argmin(((curve - height_K[:, None] * falling_KG) ** 2).sum(axis=1)))

    def misses(height_and_rate: np.ndarray) -> np.ndarray:
        height, rate = height_and_rate
        return height * np.exp(-rate * since) - curve

    found = optimize.least_squares(
        misses, [height_K[best], rates[best]], x_scale=[1, 1 / length], xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    height, k = found.x
    with np.errstate(over="ignore"):
        return float(height * np.exp(k * t[0])), float(k), _rmse(curve, curve + found.fun)


def _rmse(curve: np.ndarray, fitted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((curve - fitted) ** 2)))


def _power_of_ten(exponent: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.power(10.0, exponent))
