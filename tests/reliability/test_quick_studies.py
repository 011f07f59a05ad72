"""Every study that needs nothing from elsewhere, as ``reproduce.py <study> --quick`` runs it: its stages fit together.

Those of a real model are run on one that knows nothing, in the tests of their configs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.quick_studies import missing, run_quick

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
OF_REAL_MODELS = ("_smollm2", "_minilm")
OTHERS = {
    "knowledge_probe": "ends before the 65,536 tokens that a check asks for",
    "self_explore": "has the stages of self_explore_routes, and takes minutes",
}
STUDIES = sorted(
    name
    for path in CONFIGS.glob("*/study.yaml")
    if not (name := path.parent.name).endswith(OF_REAL_MODELS) and name not in OTHERS
)


@pytest.mark.parametrize("study", STUDIES)
def test_its_stages_fit_together_and_leave_every_number(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    assert missing(run_quick(study, set())) == []
