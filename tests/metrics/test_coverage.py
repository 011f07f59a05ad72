"""How often intervals for a level of 95 % cover the truth in small samples: simulated, and held to at least 90 %.

`pytest -m slow tests/metrics/test_coverage.py -n 0 -s` prints the table of docs/studies.md.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from metrics.benches.capability import intervals
from metrics.intervals import Interval, bounded_interval, cluster_bootstrap, share_interval, t_interval
from metrics.knowledge.statistics import Settings, contrast, estimate, mean_of
from studies.claims import Statistic
from studies.verdict import estimate as over_seeds

SIZES = (3, 5, 10, 30)
WORLDS, RESAMPLES = 800, 200
Rng = np.random.Generator
GRADES, SHARES = np.arange(1, 6), np.array([0.1, 0.2, 0.3, 0.25, 0.15])  # of a judge's scores
KNOWLEDGE = Settings(resamples=RESAMPLES)


def normal(rng: Rng, n: int) -> tuple[Interval, float]:
    return t_interval(rng.normal(2, 3, n).tolist()), 2


def uniform(rng: Rng, n: int) -> tuple[Interval, float]:
    return t_interval(rng.uniform(size=n).tolist()), 0.5


def grades(rng: Rng, n: int) -> tuple[Interval, float]:
    return t_interval(rng.choice(GRADES, n, p=SHARES).tolist()), float(GRADES @ SHARES)


def share(truth: float) -> Callable[[Rng, int], tuple[Interval, float]]:
    return lambda rng, n: (share_interval(int(rng.binomial(n, truth)), n), truth)


def verdicts(loss: float, draw: float) -> Callable[[Rng, int], tuple[Interval, float]]:
    shares = [loss, draw, 1 - loss - draw]
    return lambda rng, n: (bounded_interval(rng.choice([0, 0.5, 1], n, p=shares), 0, 1), float(1 - loss - draw / 2))


def probabilities(rng: Rng, n: int) -> tuple[Interval, float]:
    return bounded_interval(rng.beta(4, 2, n).tolist(), 0, 1), 2 / 3


def tasks(sizes: Callable[[int], list[int]], name: str = "macro") -> Callable[[Rng, int], tuple[Interval, float]]:
    """Two capabilities whose tasks are of these sizes; an easy task and a hard one differ by up to two grades."""

    def world(rng: Rng, n: int) -> tuple[Interval, float]:
        records, truth = [], []
        for capability in "ab":
            levels = 3 + 2 * rng.random(len(sizes(n)))
            for task, (level, size) in enumerate(zip(levels, sizes(n), strict=True)):
                scores = level + rng.choice(GRADES, size, p=SHARES) - GRADES @ SHARES
                records += [{"capability": capability, "task": f"t{task}", "score": score} for score in scores]
            truth.append(float(np.average(levels, weights=sizes(n))))
        return intervals(records)[name], float(np.mean(truth)) if name == "macro" else truth[0]

    return world


def clusters(rng: Rng, n: int) -> tuple[Interval, float]:
    sizes = rng.integers(1, 6, n)
    values = np.repeat(rng.normal(size=n), sizes) + 0.5 * rng.normal(size=sizes.sum())
    return cluster_bootstrap(values, np.repeat(np.arange(n), sizes).tolist(), resamples=RESAMPLES), 0


def variants(rng: Rng, n: int) -> tuple[Interval, float]:
    """Three variants of an instruction, graded alike but for noise."""
    level = np.repeat(rng.choice(GRADES, n, p=SHARES), 3)
    values = np.clip(level + rng.integers(-1, 2, 3 * n), 1, 5)
    truth = SHARES @ [np.clip(grade + np.arange(-1, 2), 1, 5).mean() for grade in GRADES]
    return cluster_bootstrap(values, np.repeat(np.arange(n), 3).tolist(), resamples=RESAMPLES), float(truth)


class Probes(SimpleNamespace):
    """What a statistic of knowledge reads of a sample."""

    def __len__(self) -> int:
        return len(self.clusters)

    @classmethod
    def drawn(cls, rng: Rng, n: int, name: str, truth: float) -> Probes:
        gains = truth + np.repeat(rng.normal(size=n), 4) + 0.5 * rng.normal(size=4 * n)
        return cls(clusters=[f"{name}{row // 4}" for row in range(4 * n)], gain_P=gains)


def found(one: dict) -> Interval:
    return Interval(one["value"], one["low"], one["high"], 0)


def passages(rng: Rng, n: int) -> tuple[Interval, float]:
    return found(estimate(mean_of("gain_P"), Probes.drawn(rng, n, "p", 1.0), KNOWLEDGE)), 1.0


def other_passages(rng: Rng, n: int) -> tuple[Interval, float]:
    one, other = Probes.drawn(rng, n, "p", 1.0), Probes.drawn(rng, n, "q", 0.4)
    return found(contrast(mean_of("gain_P"), one, other, KNOWLEDGE)), 0.6


def shared(rng: Rng, n: int) -> tuple[Interval, float]:
    """Models that all answer the same 40 questions, some of which are hard for all of them: of models and questions."""
    statistic = Statistic(
        metric="answers.jsonl#grade", contrast="a", paired_by=["seed", "id"], test="two_level_bootstrap"
    )
    hard, skill = rng.normal(size=40), 0.2 * rng.normal(size=n)
    grades = skill[:, None] + hard + 0.5 * rng.normal(size=(n, 40))
    found = {seed: {str(row): float(grade) for row, grade in enumerate(of_it)} for seed, of_it in enumerate(grades)}
    return over_seeds(found, statistic, 0.95).interval, 0


def seeds(test: str) -> Callable[[Rng, int], tuple[Interval, float]]:
    """Answers of newly trained models to questions of their own: what a model can differs more than chance does."""
    statistic = Statistic(metric="answers.jsonl#correct", contrast="a", paired_by=["seed", "id"], test=test)

    def world(rng: Rng, n: int) -> tuple[Interval, float]:
        skill = np.clip(0.6 + 0.08 * rng.normal(size=n), 0, 1)
        answers = {
            seed: {f"{seed} {row}": float(right) for row, right in enumerate(rng.random(60) < able)}
            for seed, able in enumerate(skill)
        }
        return over_seeds(answers, statistic, 0.95).interval, 0.6

    return world


CASES: dict[str, Callable[[Rng, int], tuple[Interval, float]]] = {
    "`t_interval`, normal": normal,
    "`t_interval`, uniform": uniform,
    "`t_interval`, grades 1 to 5": grades,
    "`share_interval`, 0.5": share(0.5),
    "`share_interval`, 0.8": share(0.8),
    "`share_interval`, 0.97": share(0.97),
    "`bounded_interval`, verdicts, half are won": verdicts(0.4, 0.2),
    "`bounded_interval`, verdicts, most are won": verdicts(0.05, 0.1),
    "`bounded_interval`, probabilities": probabilities,
    "`stratified_interval`, n instances of one task in each capability": tasks(lambda n: [n]),
    "`stratified_interval`, n tasks of one instance": tasks(lambda n: [1] * n),
    "`stratified_interval`, n tasks of one instance, one capability": tasks(lambda n: [1] * n, "a"),
    "`stratified_interval`, a task of n instances, one of one": tasks(lambda n: [n, 1]),
    "`stratified_interval`, n tasks of two instances": tasks(lambda n: [2] * n),
    "`cluster_bootstrap`, clusters of 1 to 5 rows": clusters,
    "`cluster_bootstrap`, grades of variants": variants,
    "knowledge, n passages": passages,
    "knowledge, n passages minus n others": other_passages,
    "studies, `t`: n seeds with rows of their own": seeds("t"),
    "studies, `two_level_bootstrap`: the same": seeds("two_level_bootstrap"),
    "studies, `two_level_bootstrap`: n seeds, the same rows in all": shared,
}


SLOW = dict.fromkeys([name for name in CASES if "two_level" in name], 300)  # worlds of those that take longest


def coverage(world: Callable[[Rng, int], tuple[Interval, float]], n: int, worlds: int = WORLDS) -> float:
    rng = np.random.default_rng(n)
    drawn = [world(rng, n) for _ in range(worlds)]
    return sum(interval.low <= truth <= interval.high for interval, truth in drawn) / worlds


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_interval_covers_the_truth_in_nine_cases_of_ten_at_least(name):
    found = {n: coverage(CASES[name], n, SLOW.get(name, WORLDS)) for n in SIZES}
    print(f"\n| {name} | {' | '.join(f'{100 * share:.0f}' for share in found.values())} |")
    assert min(found.values()) >= 0.9, found


@pytest.mark.parametrize("name", ["`t_interval`, normal", "`cluster_bootstrap`, clusters of 1 to 5 rows"])
def test_five_units_already_do(name):
    """The same of fewer worlds, for the fast suite: 95 % of 200, give or take three standard errors."""
    assert coverage(CASES[name], 5, 200) >= 0.9
