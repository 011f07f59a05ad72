"""Data that lies beside the repository: tests that need it are skipped where it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
BIGGEN = SHARED / "biggen"


def biggen_instances() -> list[dict[str, Any]]:
    """Every second instance of BiGGen Bench, 384 of them."""
    if not (path := BIGGEN / "instances.jsonl").is_file():
        pytest.skip("needs half of BiGGen Bench in ../shared/data/biggen")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def evaluator_records(name: str) -> list[dict[str, Any]]:
    """Judgments published with arXiv 2405.01535: ``vicuna_eval`` or ``hhh_alignment_eval``."""
    if not (path := SHARED / "evaluator" / f"{name}.jsonl").is_file():
        pytest.skip("needs the judgments in ../shared/data/evaluator")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judgments_file(name: str) -> str:
    """A file of published judgements."""
    if not (path := BIGGEN.parent / "evaluator" / name).is_file():
        pytest.skip(f"needs {name} in ../shared/data/evaluator")
    return str(path)


def odqa_questions(name: str = "nq_open.bm25_top10") -> list[dict[str, Any]]:
    """Open-domain questions with passages: 400 of NQ-open, or 50 of ``hotpotqa_distractor``."""
    if not (path := SHARED / "odqa" / f"{name}.jsonl").is_file():
        pytest.skip("needs the questions in ../shared/data/odqa")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
