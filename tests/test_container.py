"""The Dockerfile says what the README says. It is not built here: that takes a network and docker."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
STEPS = [line for line in LINES if line and not line.startswith("#")]


def test_what_it_installs_is_what_the_readme_installs():
    readme = (ROOT / "README.md").read_text()
    installs = [found.strip() for line in STEPS for found in re.findall(r"pip install[^;]*", line)]
    assert len(installs) == 3
    assert [command for command in installs if command not in readme] == []


def test_its_python_is_one_that_the_project_takes():
    (version,) = (found[1] for line in STEPS if (found := re.match(r"FROM python:([\d.]+)-slim$", line)))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert SpecifierSet(needed).contains(version)


def test_what_it_copies_is_there_before_it_is_needed():
    copies = [line.split()[1:-1] for line in STEPS if line.startswith("COPY")]
    assert copies[-1] == ["."]
    assert all((ROOT / name).is_file() for name in copies[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt"} <= set(copies[0])


def test_what_git_leaves_out_the_image_leaves_out():
    left_out = {line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().split()}
    own = {line for line in (ROOT / ".gitignore").read_text().split() if line.endswith("/")}
    assert own <= left_out
