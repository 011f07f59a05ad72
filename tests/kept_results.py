"""Kept results against themselves and against the README: what is said of a result follows from its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from metrics.intervals import Interval, t_interval
from studies.claims import Criterion
from studies.holm import holm
from studies.report import OF_CHECKS
from studies.verdict import decide, p_value

NUMBER = r"[+-]?\d+(?:\.\d+)?"
SAID = re.compile(rf"({NUMBER})[^\[\];:|]*\[({NUMBER}), ({NUMBER})\][^\[\];:|]*: (SHOWN|NOT SHOWN|INCONCLUSIVE)")
COUNTED = re.compile(r"(\d+) claims?, (\d+) shown")
SCALES = (1, 100)  # a share may stand as a percentage

Result = Mapping[str, Any]


def problems_of(result: Result) -> list[str]:
    """Verdicts and intervals of a result that do not follow from the numbers beside them."""
    found = list(_corrections(result["claims"]))
    for claim in result["claims"]:
        estimate = claim["estimate"]
        low, high = (math.nan if estimate[side] is None else estimate[side] for side in ("low", "high"))
        point = "{} {}".format(*claim["point"]) if claim["point"] else None
        criterion = Criterion(
            direction=claim["direction"], than=claim["than"] or 0.0, level=claim["level"], point=point
        )
        verdict, is_reversed = decide(criterion, Interval(math.nan, low, high, estimate["units"]))
        if (claim.get("corrected_p") or 0) > 1 - claim["level"]:
            verdict, is_reversed = "INCONCLUSIVE", False
        names = OF_CHECKS if claim.get("kind") == "check" else {}
        words = names.get(verdict, verdict) + " (reversed)" * is_reversed
        if claim["words"] not in (words, names.get("INCONCLUSIVE", "INCONCLUSIVE") if claim["notes"] else ""):
            found.append(f"{claim['claim']}: {claim['words']}, where the interval says {verdict}")
        per_seed = list(estimate["per_seed"].values())
        if claim["test"] == "t" and None not in per_seed:
            again = t_interval(per_seed, claim["level"])
            if [estimate[name] for name in ("mean", "low", "high")] != pytest.approx(
                [again.mean, again.low, again.high]
            ):
                found.append(f"{claim['claim']}: the interval is not that of the seeds")
            again_p = p_value(criterion, partial(t_interval, per_seed))
            if claim.get("p") is not None and claim["p"] != pytest.approx(again_p, rel=1e-3):
                found.append(f"{claim['claim']}: the p-value is not that of the seeds")
    return found


def _corrections(claims: list[dict[str, Any]]) -> Iterator[str]:
    """Exploratory claims whose corrected p-value is not Holm's."""
    several = [claim for claim in claims if claim.get("kind") == "exploratory"]
    corrected = holm([math.nan if claim["p"] is None else claim["p"] for claim in several])
    for claim, again in zip(several, corrected, strict=True):
        stated = math.nan if claim["corrected_p"] is None else claim["corrected_p"]
        if stated != pytest.approx(again, rel=1e-4, nan_ok=True):
            yield f"{claim['claim']}: the corrected p-value is not Holm's"


def counted(claims: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims that count: checks do not, for they say nothing of the paper when they hold."""
    return [claim for claim in claims if claim.get("kind") != "check"]


def contradictions(readme: str, results: Mapping[str, Result], studies: list[str]) -> list[str]:
    """What the README's table says of a study and its results do not.

    Args:
        readme: the page.
        results: by study. A row tells of those studies of its method that have one, and of no other.
        studies: all that there are; ``instructir_minilm`` belongs to ``instructir``.
    """
    found = []
    for method in studies:
        own = [study for study in studies if study == method or study.startswith(f"{method}_")]
        claims = [claim for study in own if study in results for claim in results[study]["claims"]]
        row = next((line for line in readme.splitlines() if f"`python reproduce.py {method}`" in line), None)
        if row is not None and claims:
            found += [f"{method}: {problem}" for problem in _of_row(row, claims)]
    return found


def _of_row(row: str, claims: list[dict[str, Any]]) -> Iterator[str]:
    said = SAID.findall(row)
    if not said:
        yield "no result with its interval and verdict"
    for *numbers, verdict in said:
        if not any(claim["verdict"] == verdict and _same(claim["estimate"], numbers) for claim in claims):
            yield f"no claim has {numbers[0]} [{numbers[1]}, {numbers[2]}]: {verdict}"
    counts = len(counted(claims)), sum(claim["verdict"] == "SHOWN" for claim in counted(claims))
    for stated in COUNTED.findall(row) or [("no", "no")]:
        if tuple(stated) != tuple(map(str, counts)):
            yield f"{stated[0]} claims, {stated[1]} shown, where it is {counts[0]} and {counts[1]}"


def _same(estimate: Result, numbers: list[str]) -> bool:
    values = [estimate[name] for name in ("mean", "low", "high")]
    return None not in values and any(
        all(_rounded(scale * value, text) for value, text in zip(values, numbers, strict=True)) for scale in SCALES
    )


def _rounded(value: float, text: str) -> bool:
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10**-digits + 1e-9
