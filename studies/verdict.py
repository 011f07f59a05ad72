"""From the numbers of the runs to a verdict: paired differences, their interval, and the criterion applied to it.

    SHOWN          the whole interval is where the criterion wants it
    NOT SHOWN      none of it is: all of it lies on the other side (reversed), or beyond the bound
    INCONCLUSIVE   the interval holds both, or the runs cannot tell: a single seed, a missing value, a precondition that
                   does not hold, other seeds than were committed

Seeds are the unit: a claim is about what training gives, not about the models that happened to be trained. This file
knows values per arm and seed. It does not know where they were read (readings.py).

Shape suffixes: B bootstrap resamples, S seeds, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metrics.intervals import Interval, small_sample_bounds, t_interval
from studies.claims import Claim, Condition, Criterion, Statistic

Verdict = Literal["SHOWN", "NOT SHOWN", "INCONCLUSIVE"]
Measured = Mapping[str, float]  # what was measured in one run; a run that is paired by seed has the one row ""
Values = Mapping[int, Measured]  # by seed
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval, and the value of every seed."""

    interval: Interval
    per_seed: dict[int, float]


@dataclass(frozen=True)
class Outcome:
    """What became of a claim.

    Attributes:
        claim: as in study.yaml.
        verdict: see the head of this file.
        reversed: whether the whole interval lies on the wrong side.
        notes: why it is inconclusive, and what else a reader must know.
        arms: the estimate of each arm.
        contrast: the estimate that the criterion judges.
    """

    claim: Claim
    verdict: Verdict
    reversed: bool
    notes: tuple[str, ...]
    arms: dict[str, Estimate]
    contrast: Estimate


def judge(claim: Claim, values: Mapping[str, Values], guards: list[float], obstacles: list[str]) -> Outcome:
    """Apply a claim's criterion.

    Args:
        claim: statistic and criterion.
        values: what was measured, by arm: those of the contrast, and others to be shown beside them.
        guards: means of the criterion's preconditions, in order.
        obstacles: reasons, known beforehand, why there can be no verdict.
    """
    statistic, criterion = claim.statistic, claim.criterion
    contrast = [values[arm] for arm in statistic.arms]
    difference, unpaired = (contrast[0], []) if len(contrast) == 1 else paired(*contrast)
    found = estimate(difference, statistic, criterion.level)
    arms = {arm: estimate(measured, statistic, criterion.level) for arm, measured in values.items()}

    obstacles = obstacles + unpaired
    if len(difference) < 2:
        obstacles.append("one seed has no spread to judge by")
    if any(math.isnan(value) for value in found.per_seed.values()):
        obstacles.append("a value is missing or not a number")
    for guard, value in zip(criterion.requires, guards, strict=True):
        if not guard.point.holds(value):
            obstacles.append(f"precondition not met: {guard}, but it is {value:.4g}")
    verdict, is_reversed = decide(criterion, found.interval)
    notes = list(obstacles)
    for name, seen in [(statistic.contrast, found), *((arm, arms[arm]) for arm in statistic.arms)]:
        if len(set(seen.per_seed.values())) == 1 < len(seen.per_seed):
            notes.append(f"every seed gave exactly the same value of {name}: does the seed reach it?")
    if obstacles:
        verdict, is_reversed = "INCONCLUSIVE", False
    return Outcome(claim, verdict, is_reversed, tuple(dict.fromkeys(notes)), arms, found)


def decide(criterion: Criterion, found: Interval) -> tuple[Verdict, bool]:
    """The verdict by the interval alone, and whether the claim is reversed."""
    kept = [] if criterion.point is None else [criterion.point.decides(found.low, found.high)]
    is_reversed = False
    if criterion.direction is not None:
        claimed, other = (">", "<") if criterion.direction == "greater" else ("<", ">")
        is_reversed = Condition(other, criterion.than).decides(found.low, found.high) is True
        kept.append(False if is_reversed else Condition(claimed, criterion.than).decides(found.low, found.high) or None)
    if False in kept:
        return "NOT SHOWN", is_reversed
    return ("INCONCLUSIVE" if None in kept else "SHOWN"), False


def paired(first: Values, second: Values) -> tuple[Values, list[str]]:
    """Differences row by row, and what could not be paired."""
    differences: dict[int, Measured] = {}
    unpaired = []
    for seed in first:
        ours, theirs = first[seed], second[seed]
        differences[seed] = {row: ours[row] - theirs[row] for row in ours if row in theirs}
        if alone := len(ours.keys() ^ theirs.keys()):
            unpaired.append(f"seed {seed}: {alone} rows are in one arm only")
    return differences, unpaired


def estimate(values: Values, statistic: Statistic, level: float) -> Estimate:
    """Mean over seeds and its interval, by the statistic's test."""
    rows = {seed: np.array([found[row] for row in sorted(found)], dtype=np.float64) for seed, found in values.items()}
    per_seed = {seed: float(found.mean()) if len(found) else math.nan for seed, found in rows.items()}
    means = list(per_seed.values())
    if any(math.isnan(value) for value in means):  # a mean over the seeds that happen to be there would flatter
        interval = Interval(math.nan, math.nan, math.nan, len(means))
    elif statistic.test == "t":
        interval = t_interval(means, level)
    else:
        interval = _two_level(values, level)
    return Estimate(interval, per_seed)


def _two_level(values: Values, level: float) -> Interval:
    """Bootstrap that draws seeds, and rows: a new seed would bring new rows, too.

    Rows of the same names in all seeds are drawn together (Owen 2007, the pigeonhole bootstrap): what is hard for one
    model may be hard for all. Others are drawn within their seeds.
    """
    rng, n = np.random.default_rng(0), len(values)
    names = [sorted(rows) for rows in values.values()]
    rows = [np.array([found[name] for name in of_it]) for found, of_it in zip(values.values(), names, strict=True)]
    if all(of_it == names[0] for of_it in names):
        table_SR, count = np.stack(rows), len(names[0])
        seeds_BS = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
        rows_BR = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
        draws_B = (seeds_BS @ table_SR * rows_BR).sum(axis=1)
    else:
        drawn = [found[rng.integers(0, len(found), (RESAMPLES, len(found)))].mean(axis=1) for found in rows]
        seeds, of_them = rng.integers(0, n, (RESAMPLES, n)), rng.integers(0, RESAMPLES, (RESAMPLES, n))
        draws_B = np.stack(drawn)[seeds, of_them].mean(axis=1)
    estimate = float(np.mean([found.mean() for found in rows]))
    low, high = small_sample_bounds(estimate, draws_B, n, level)
    return Interval(estimate, float(low), float(high), n)
