"""From the numbers of the runs to a verdict: paired differences, their interval, and the criterion applied to it.

    SHOWN          the whole interval is where the criterion wants it
    NOT SHOWN      none of it is: all of it lies on the other side (reversed), or beyond the bound
    INCONCLUSIVE   the interval holds both, or the runs cannot tell: a single seed, a missing value, a precondition that
                   does not hold, other seeds than were committed

Of several exploratory claims each verdict must also outlast Holm's correction for their number.

Seeds are the unit: a claim is about what training gives, not about the models that happened to be trained. This file
knows values per arm and seed. It does not know where they were read (readings.py).

Shape suffixes: B bootstrap resamples, S seeds, R rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from metrics.intervals import Interval, small_sample_bounds, t_interval
from studies.claims import Claim, Condition, Criterion, Kind, Statistic
from studies.holm import holm

Verdict = Literal["SHOWN", "NOT SHOWN", "INCONCLUSIVE"]
Measured = Mapping[str, float]  # what was measured in one run; a run that is paired by seed has the one row ""
Values = Mapping[int, Measured]  # by seed
RESAMPLES = 2000
SMALLEST_P = 1e-9  # below it a quantile of t is rounding


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
        p: see `p_value`; NaN without an interval.
        corrected_p: the same after Holm's correction, where the claim is one of several exploratory ones.
    """

    claim: Claim
    verdict: Verdict
    reversed: bool
    notes: tuple[str, ...]
    arms: dict[str, Estimate]
    contrast: Estimate
    p: float
    corrected_p: float | None = None


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
    if statistic.test == "two_level_bootstrap":
        obstacles += partly_shared(difference)
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
    p = p_value(criterion, intervals(difference, statistic))
    return Outcome(claim, verdict, is_reversed, tuple(dict.fromkeys(notes)), arms, found, p)


def judge_together(outcomes: Sequence[tuple[Kind, Outcome]]) -> list[tuple[Kind, Outcome]]:
    """Correct the exploratory claims of a study for their number: a verdict that does not outlast it is withdrawn."""
    corrected = iter(holm([outcome.p for kind, outcome in outcomes if kind == "exploratory"]))
    return [(kind, _corrected(found, next(corrected)) if kind == "exploratory" else found) for kind, found in outcomes]


def _corrected(outcome: Outcome, p: float) -> Outcome:
    found = replace(outcome, corrected_p=p)
    if outcome.verdict == "INCONCLUSIVE" or p <= 1 - outcome.claim.criterion.level:
        return found
    note = f"{outcome.verdict} by its own interval (p = {outcome.p:.2g}), and not among its number (Holm: {p:.2g})"
    return replace(found, verdict="INCONCLUSIVE", reversed=False, notes=(*outcome.notes, note))


def p_value(criterion: Criterion, interval: Callable[[float], Interval]) -> float:
    """The smallest 1 - level at which a criterion is still decided, either way; NaN where there is no interval.

    For one bound and Student's t it is the two-sided p-value of the mean against it. Intervals of lower levels lie in
    those of higher ones, so it is found by halving.
    """

    def decides(p: float) -> bool:
        return decide(criterion, interval(1 - p))[0] != "INCONCLUSIVE"

    if math.isnan(interval(0.5).low):
        return math.nan
    low, high = math.log(SMALLEST_P), math.log(1 - SMALLEST_P)
    if decides(SMALLEST_P) or not decides(1 - SMALLEST_P):
        return SMALLEST_P if decides(SMALLEST_P) else 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(math.exp(middle)) else (middle, high)
    return math.exp(high)


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


def partly_shared(values: Values) -> list[str]:
    """Rows that a seed lacks and others have: drawn together or apart, what is missing may be what was hard."""
    seeds_of = Counter(row for rows in values.values() for row in rows)
    if max(seeds_of.values(), default=0) < 2:  # every seed has rows of its own
        return []
    missing = {seed: sorted(seeds_of.keys() - rows.keys()) for seed, rows in values.items()}
    return [
        f"seed {seed}: {len(rows)} rows that other seeds have are missing, such as '{rows[0]}'"
        for seed, rows in missing.items()
        if rows
    ]


def estimate(values: Values, statistic: Statistic, level: float) -> Estimate:
    """Mean over seeds and its interval, by the statistic's test."""
    return Estimate(intervals(values, statistic)(level), _per_seed(values))


def intervals(values: Values, statistic: Statistic) -> Callable[[float], Interval]:
    """The interval at any level."""
    means = list(_per_seed(values).values())
    if any(math.isnan(value) for value in means):  # a mean over the seeds that happen to be there would flatter
        return lambda level: Interval(math.nan, math.nan, math.nan, len(means))
    if statistic.test == "t":
        return lambda level: t_interval(means, level)
    mean, draws_B = float(np.mean(means)), _two_level(values)

    def bounds(level: float) -> Interval:
        low, high = small_sample_bounds(mean, draws_B, len(means), level)
        return Interval(mean, float(low), float(high), len(means))

    return bounds


def _per_seed(values: Values) -> dict[int, float]:
    rows = {seed: np.array([found[row] for row in sorted(found)], dtype=np.float64) for seed, found in values.items()}
    return {seed: float(found.mean()) if len(found) else math.nan for seed, found in rows.items()}


def _two_level(values: Values) -> np.ndarray:
    """Means of a bootstrap, [B], that draws seeds, and rows: a new seed would bring new rows, too.

    Rows of the same names in all seeds are drawn together (Owen 2007, the pigeonhole bootstrap): what is hard for one
    model may be hard for all. Rows that each seed has for itself are drawn within it; for others see `partly_shared`.
    """
    rng, n = np.random.default_rng(0), len(values)
    names = [sorted(rows) for rows in values.values()]
    rows = [np.array([found[name] for name in of_it]) for found, of_it in zip(values.values(), names, strict=True)]
    if all(of_it == names[0] for of_it in names):
        table_SR, count = np.stack(rows), len(names[0])
        seeds_BS = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
        rows_BR = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
        return (seeds_BS @ table_SR * rows_BR).sum(axis=1)
    drawn = [found[rng.integers(0, len(found), (RESAMPLES, len(found)))].mean(axis=1) for found in rows]
    seeds, of_them = rng.integers(0, n, (RESAMPLES, n)), rng.integers(0, RESAMPLES, (RESAMPLES, n))
    return np.stack(drawn)[seeds, of_them].mean(axis=1)
