"""A disk that fills up: one clear sentence, and the last good checkpoint is still there."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callbacks.run_folders import resumable_checkpoint
from cli.trainer_cli import main
from lm.files.checkpoint_files import read_header
from tests.tiny_runs import write_config

WIDTH = 30_000  # a checkpoint of a third of a megabyte, far above what logs take


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("a small file system can only be mounted by root: " + mount.stderr.decode().strip())
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fit(*options: str) -> None:
    width = {"init_args": {"width": WIDTH}}
    config = write_config(
        Path(),
        model={"class_path": "tests.tiny_runs.Regression", **width},
        data={"class_path": "tests.tiny_runs.Numbers", **width},
    )
    main(["fit", "--config", str(config), *options])


def assert_fails_and_goes_on(capsys: Any, run: Path, fill: Any, free: Any) -> None:
    fill()
    try:
        with pytest.raises(SystemExit) as stopped:
            fit("--ckpt_path", "last", "--trainer.default_root_dir", str(run.parent))
    finally:
        free()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "could not be written" in said
    assert "--ckpt_path last" in said
    assert len(said.splitlines()) == 1
    assert read_header(resumable_checkpoint(run) or Path())["global_step"] == 3
    assert not (run / "metrics.json").exists()
    assert not [path for path in run.rglob("*") if "writing" in path.name or "partial" in path.name]
    fit("--ckpt_path", "last", "--trainer.max_steps=6", "--trainer.default_root_dir", str(run.parent))
    assert read_header(run / "checkpoints/last.ckpt")["global_step"] == 6


def test_file_size_limit(capsys: Any) -> None:
    fit("--trainer.max_steps=3", "--trainer.default_root_dir=root")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert_fails_and_goes_on(
        capsys,
        Path("root/version_0"),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard)),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
    )


def test_full_file_system(capsys: Any, small_disk: Path) -> None:
    root, ballast = small_disk / "root", small_disk / "ballast"
    fit("--trainer.max_steps=3", "--trainer.default_root_dir", str(root))
    assert_fails_and_goes_on(
        capsys, root / "version_0", lambda: ballast.write_bytes(bytes(650_000)), lambda: ballast.unlink()
    )
