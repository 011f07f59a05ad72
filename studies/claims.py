"""What a claim is: the number it is about, and when it counts as shown. Half of the schema of study.yaml.

This file knows the notation of metrics, contrasts and criteria. It does not know which runs make the numbers (plan.py)
or how intervals are computed (verdict.py).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from text.suggestions import did_you_mean

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

# What a claim is to its study: the one that the seeds were committed for, one of several looked at beside it, or a
# condition of both that says nothing new when it holds.
Kind = Literal["confirmatory", "exploratory", "check"]

Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


def hint(word: str, known: Iterable[str]) -> str:
    """What a misspelt name may have meant, or else what there is, as the end of an error message."""
    return did_you_mean(word, known) or f" There is: {', '.join(sorted(known)) or 'nothing'}."


class Part(BaseModel):
    """Base of the schema: nothing but the documented fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        for name in data if isinstance(data, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(f"there is no field '{name}' here.{hint(str(name), cls.model_fields)}")
        return data


class Source(NamedTuple):
    """One number a run leaves: ``[<stage>:]<name>`` in its metrics.json, or ``[<stage>:]<file>.jsonl#<column>``."""

    stage: str | None
    name: str
    column: str | None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read the notation above; without a stage, the last of the arm is meant."""
        stage, found, rest = text.strip().rpartition(":")
        name, _, column = rest.partition("#")
        return cls(stage if found else None, name, column or None)


class Contrast(Part):
    """A number: a metric, in one arm or in one arm minus another.

    Args:
        metric: a name (see Source), a difference ``a - b`` of two within a run, or a list of such: then their mean.
        contrast: ``arm - other arm``, or one arm.
    """

    metric: Names = Field(min_length=1)
    contrast: str

    @property
    def terms(self) -> list[tuple[int, Source]]:
        """Every number of the metric with its sign; their signed sum is ``len(metric)`` times the metric."""
        return [
            (-1 if place else 1, Source.parse(part))
            for metric in self.metric
            for place, part in enumerate(metric.split(" - "))
        ]

    @property
    def arms(self) -> list[str]:
        """The arm, or the two arms: first minus second."""
        return [arm.strip() for arm in self.contrast.split(" - ")]

    @property
    def unit(self) -> str | None:
        """The column that names the rows of a run; None where a run is one number."""
        return None

    @model_validator(mode="after")
    def _consistent(self) -> Contrast:
        if len(self.arms) > 2 or any(len(metric.split(" - ")) > 2 for metric in self.metric):
            raise ValueError("a contrast or a metric is one name or a difference of two: 'a' or 'a - b'.")
        if any((source.column is None) != (self.unit is None) for _, source in self.terms):
            want = "a name in metrics.json" if self.unit is None else "<file>.jsonl#<column>"
            raise ValueError(f"field 'metric': here it should be {want} (docs/studies.md, statistics).")
        return self


class Statistic(Contrast):
    """The number a claim is about, and how its interval comes about.

    Args:
        paired_by: ``seed``, or ``[seed, <column>]`` for rows of a JSONL file.
        test: see docs/studies.md.
    """

    paired_by: Names = Field(["seed"])
    test: Literal["t", "two_level_bootstrap"] = "t"

    @property
    def unit(self) -> str | None:
        """See Contrast."""
        return self.paired_by[1] if len(self.paired_by) > 1 else None

    @model_validator(mode="after")
    def _paired(self) -> Statistic:
        if self.paired_by[0] != "seed" or len(self.paired_by) > 2:
            raise ValueError(f"field 'paired_by': {self.paired_by} should be seed, or [seed, <column>].")
        if self.test != "t" and self.unit is None:
            raise ValueError("test: two_level_bootstrap needs rows: paired_by: [seed, <column>] of a JSONL file.")
        return self


class Condition(NamedTuple):
    """A bound on a number: ``>= 0.8``."""

    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a number keeps the bound (never, for NaN)."""
        return COMPARISONS[self.sign](value, self.bound)

    def decides(self, low: float, high: float) -> bool | None:
        """Whether all of an interval keeps the bound, or none of it; None where the interval holds both, or is none."""
        if math.isnan(low) or math.isnan(high) or self.holds(low) != self.holds(high):
            return None
        return self.holds(low)

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


def _condition(text: Any) -> Any:
    if isinstance(text, str) and (found := re.fullmatch(r"\s*(>=|<=|>|<)\s*(\S+)\s*", text)):
        try:
            return Condition(found[1], float(found[2]))
        except ValueError:
            pass
    raise ValueError(f"{text!r} should be a comparison with a number: '>= 0.8'.")


Point = Annotated[Condition, BeforeValidator(_condition)]


class Guard(Contrast):
    """What must hold, on the mean over seeds, for the study to be able to tell; otherwise it is INCONCLUSIVE."""

    point: Point

    def __str__(self) -> str:
        return f"{', '.join(self.metric)} of {self.contrast} {self.point}"


class Criterion(Part):
    """When the claim counts as shown.

    Args:
        direction: the interval must lie wholly on this side of ``than``.
        than: the value that is compared with.
        level: level of the two-sided interval.
        point: a bound that the whole interval must keep, with ``direction`` or in its place.
        requires: preconditions of any verdict.
    """

    direction: Literal["greater", "less"] | None = None
    than: float = 0.0
    level: float = Field(0.95, gt=0.5, lt=1)
    point: Point | None = None
    requires: list[Guard] = []

    @model_validator(mode="after")
    def _judges(self) -> Criterion:
        if self.direction is None and self.point is None:
            raise ValueError("field 'direction' or 'point' is missing: nothing would be judged.")
        return self

    def __str__(self) -> str:
        parts = []
        if self.direction:
            side = "above" if self.direction == "greater" else "below"
            parts.append(f"{100 * self.level:g} % interval wholly {side} {self.than:g}")
        if self.point:
            parts.append(f"{100 * self.level:g} % interval wholly {self.point}")
        parts += [f"requires {guard}" for guard in self.requires]
        return "; ".join(parts)


class Claim(Part):
    """A sentence, the paper's numbers for it, and how it is tested. ``null`` in ``paper`` means: not available."""

    claim: str
    paper: dict[str, Any] | None
    statistic: Statistic
    criterion: Criterion
