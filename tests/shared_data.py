"""Data that lies beside the repository: tests that need it are skipped where it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BIGGEN = Path(__file__).parents[2] / "shared" / "data" / "biggen"


def biggen_instances() -> list[dict[str, Any]]:
    """Every second instance of BiGGen Bench, 384 of them."""
    if not (path := BIGGEN / "instances.jsonl").is_file():
        pytest.skip("needs half of BiGGen Bench in ../shared/data/biggen")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
