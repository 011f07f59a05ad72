"""The files that a new method begins with run as they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.new_method import write_method
from text.errors import UserError

ROOT = Path(__file__).parents[2]
TESTS = ("tests/modules/test_tried.py", "tests/test_repository.py")


def test_names_follow_and_nothing_is_written_over(tmp_path):
    written = write_method("odd_one2", tmp_path)
    assert {str(file) for file in written} == {
        "modules/odd_one2.py",
        "configs/odd_one2/mini.yaml",
        "tests/modules/test_odd_one2.py",
        "docs/odd_one2.md",
    }
    assert "class OddOne2(LanguageModule):" in (tmp_path / "modules/odd_one2.py").read_text()
    assert not [file for file in written if "new_method" in (tmp_path / file).read_text().lower().replace(" ", "_")]
    (tmp_path / "docs/odd_one2.md").unlink()
    with pytest.raises(UserError, match=r"modules/odd_one2\.py, tests/modules/test_odd_one2\.py is there already"):
        write_method("odd_one2", tmp_path)
    assert not (tmp_path / "docs/odd_one2.md").exists()


@pytest.mark.parametrize("name", ["", "NewOne", "../up", "a__b", "1st"])
def test_other_names_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="small letters"):
        write_method(name, tmp_path)


@pytest.mark.slow
def test_what_is_written_trains_and_passes_its_tests(tmp_path):
    project = tmp_path / "project"
    left = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", "pictures", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, project, ignore=left)
    write_method("tried", project)
    for call in (
        ["main.py", "fit", "--config", "configs/tried/mini.yaml", "--trainer.fast_dev_run", "true"],
        [
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "tests/modules/test_tried.py",
            "tests/test_repository.py",
            "-k",
            "not installed",
        ],
    ):
        done = subprocess.run([sys.executable, *call], cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
