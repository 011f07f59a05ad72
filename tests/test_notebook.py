"""docs/first_steps.ipynb runs from top to bottom, and prints what is kept in it."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("nbclient", "ipykernel")
DEV = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
BROUGHT = {Requirement(line).name for line in DEV}

# Where the extra dev brings both, a missing one fails the test as any other would.
MISSING = [name for name in NEEDED if name not in BROUGHT and find_spec(name) is None]


def printed(notebook) -> list[str]:
    """What each cell printed, without its digits: last ones differ from machine to machine."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [re.sub(r"\d", "#", output.get("text", "a picture")) for output in outputs]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the notebook needs {' and '.join(MISSING)}: pip install nbclient ipykernel")
def test_the_notebook_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where its run goes
    kept = nbformat.read(ROOT / "docs/first_steps.ipynb", as_version=4)
    notebook = nbformat.read(ROOT / "docs/first_steps.ipynb", as_version=4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    assert printed(notebook) == printed(kept)
    assert len(printed(kept)) == 5
