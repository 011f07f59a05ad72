"""Reads what runs left: metrics.json and rows of JSONL files. What is not there is said, never passed over.

This file knows run folders. It does not know what a value is good for (verdict.py).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from studies.claims import Contrast, Source, hint
from studies.stages import Stage, Work
from text.json_lines import read_json_lines

FACTS = {"steps": "step", "tokens": "train/tokens"}  # what describes a run in a report: its name in metrics.json


class Readings:
    """The numbers of a study's runs.

    Attributes:
        problems: what could not be read, a line each.
    """

    def __init__(self, work: Work):
        self.work = work
        self.problems: list[str] = []

    def values(self, what: Contrast, arm: str) -> dict[int, dict[str, float]]:
        """By seed: the rows of a run, or its single number under the name ""."""
        return {seed: self._metric(what, arm, seed) for seed in self.work.seeds}

    def mean(self, what: Contrast) -> float:
        """Point estimate over seeds of a contrast of single numbers."""
        arms = [np.mean([rows.get("", math.nan) for rows in self.values(what, arm).values()]) for arm in what.arms]
        return float(arms[0] - arms[1] if len(arms) > 1 else arms[0])

    def _metric(self, what: Contrast, arm: str, seed: int) -> dict[str, float]:
        terms = [(sign, self._rows(source, what.unit, arm, seed)) for sign, source in what.terms]
        names = dict.fromkeys(name for _, rows in terms for name in rows)
        signed_sums = {name: sum(sign * rows.get(name, math.nan) for sign, rows in terms) for name in names}
        return {name: value / len(what.metric) for name, value in signed_sums.items()}

    def _rows(self, source: Source, unit: str | None, arm: str, seed: int) -> dict[str, float]:
        line = self.work.lines[arm, seed]
        name = source.stage or list(line)[-1]
        where = f"arm {arm}, seed {seed}"
        if name not in line:
            self.problems.append(f"{where}: has no stage '{name}'")
            return {}
        stage = self.work.stages[line[name]]
        if unit is None:
            return {"": self._number(read_metrics(self.work.root / stage.marker), source.name, stage.marker, where)}
        path = stage.run / source.name
        if not (self.work.root / path).is_file():
            self.problems.append(f"{where}: there is no {path}")
            return {}
        found: dict[str, list[float]] = defaultdict(list)
        for record in _records(self.work.root / path):
            if unit not in record:
                self.problems.append(f"{where}: a row of {path} has no '{unit}'.{hint(unit, record)}")
                return {}
            found[str(record[unit])].append(self._number(record, source.column or "", path, where))
        return {name: float(np.mean(numbers)) for name, numbers in found.items()}

    def _number(self, record: dict[str, Any], name: str, path: Path, where: str) -> float:
        value = record.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        what = "is not a finite number" if name in record else f"is missing.{hint(name, record)}"
        problem = f"{where}: '{name}' in {path} {what}"
        if problem not in self.problems:
            self.problems.append(problem)
        return math.nan


@cache
def read_metrics(path: Path) -> dict[str, Any]:
    """The final scalars of a run."""
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def _records(path: Path) -> list[dict[str, Any]]:
    return read_json_lines(path)


def facts(work: Work, stage: Stage) -> dict[str, Any]:
    """What a run says of its size, on any machine the same."""
    found = read_metrics(work.root / stage.marker)
    return {name: found[logged] for name, logged in FACTS.items() if logged in found}
