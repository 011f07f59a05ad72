"""Disks that refuse: one line, whichever library says so; bugs of ours are none of these."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

import export
import merge
import reproduce
from cli.disk_errors import reason_of
from cli.run_errors import known_reason
from tests import warm_runs
from tests.stand_ins import published
from tests.warm_runs import ROOT
from text.errors import UserError


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "x/y: could not be written: No space left on device: make room"),
        (errno.EDQUOT, "x/y: could not be written: Disk quota exceeded: make room"),
        (errno.EROFS, "x/y: could not be written: Read-only file system: allow it, or give another place"),
        (errno.EACCES, "x/y: Permission denied: allow it, or give another place"),
        (errno.EEXIST, "x/y: File exists: a file stands where a folder should be"),
        (errno.ENOTDIR, "x/y: Not a directory: a file stands where a folder should be"),
        (errno.EISDIR, "x/y: Is a directory: a folder stands where a file should be"),
        (errno.ENOENT, "x/y: No such file or directory: is the disk there?"),
    ],
)
def test_what_the_system_says_comes_with_what_can_be_done(number, said):
    assert reason_of(OSError(number, os.strerror(number), "x/y")).startswith(said)


def test_libraries_in_rust_say_it_as_text_and_others_as_a_cause():
    rust = RuntimeError("Error while serializing: I/O error: Read-only file system (os error 30)")
    assert "could not be written: Read-only file system" in reason_of(rust)
    wrapped = RuntimeError("An error occurred while generating the dataset")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "cache/a.arrow")
    assert reason_of(wrapped).startswith("cache/a.arrow: could not be written")
    assert reason_of(UserError("what was wrong")) == "what was wrong"


@pytest.mark.parametrize(
    "bug", [KeyError("x"), OSError(errno.EBADF, "Bad file descriptor"), ConnectionRefusedError(111, "refused")]
)
def test_bugs_keep_their_traceback(bug):
    assert reason_of(bug) is None


def test_a_bug_that_follows_an_error_of_the_data_is_a_bug():
    """What is raised in a library says what it was raised from; what is raised here was meant, or is a bug."""

    def raised(by):
        try:
            try:
                raise UserError("pairs.jsonl:7: field 'chosen': missing")
            except UserError as error:
                by(error)
        except Exception as error:
            return error

    def ours(error):
        raise KeyError("a slip") from error

    library = compile("def wrapped(error):\n    raise RuntimeError('while loading') from error", "/lib/x.py", "exec")
    exec(library, names := {})
    assert reason_of(raised(ours)) is None
    assert reason_of(raised(names["wrapped"])) == "pairs.jsonl:7: field 'chosen': missing"
    slip = raised(ours)
    tried = ValueError("behind another")
    tried.__cause__ = slip
    assert known_reason(tried) is None


def test_only_the_checkpoints_of_the_run_are_those_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("checkpoints", "run/checkpoints"):
        Path(folder).mkdir(parents=True)
        Path(folder, "last.ckpt").touch()
    full = OSError(errno.ENOSPC, "No space left on device", "x")
    monkeypatch.delenv("SEEDLING_RUN", raising=False)
    assert "--ckpt_path last" not in known_reason(full)
    monkeypatch.setenv("SEEDLING_RUN", "run")
    assert "--ckpt_path last" in known_reason(full)


def doors(place: str, folders: list[str]):
    """Each door with an output at a place, as a user would write it."""
    yield lambda: merge.main([*folders, "--out", place])
    yield lambda: merge.main([*folders, "--out", place, "--method", "slerp", "--overwrite"])
    yield lambda: export.main([folders[0], place])


def test_a_file_in_the_way_is_one_line_at_export_and_merge(tmp_path):
    folders = [str(published(tmp_path / name, seed)) for seed, name in enumerate(("a", "b"))]
    (tmp_path / "file").write_text("kept")
    for door in list(doors(str(tmp_path / "file" / "out"), folders))[:2]:
        with pytest.raises(SystemExit) as stop:
            door()
        assert "a file stands where a folder should be" in str(stop.value)
        assert len(str(stop.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "file"]


def test_a_disk_error_of_a_study_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(errno.EROFS, "Read-only file system", "runs/x")

    monkeypatch.setattr(reproduce, "prepare", full)
    with pytest.raises(SystemExit, match="runs/x: could not be written: Read-only file system"):
        reproduce.main(["knowledge_probe"])


@pytest.mark.slow
def test_read_only_and_full_disks_are_one_line_and_leave_nothing(tmp_path):
    """On real file systems, which only root can mount."""
    folders = [str(published(tmp_path / name, seed)) for seed, name in enumerate(("a", "b"))]
    disk = tmp_path / "disk"
    disk.mkdir()
    for options, said in (("ro,size=1m", "Read-only file system"), ("size=64k", "No space left on device")):
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True)
        if mounted.returncode:
            pytest.skip("only root can mount")
        try:
            for door in list(doors(str(disk / "out"), folders))[:2]:
                with pytest.raises(SystemExit) as stop:
                    door()
                assert said in str(stop.value)
                assert len(str(stop.value).splitlines()) == 1
            config = ["--config", str(ROOT / "configs/generate.yaml"), "--trainer.default_root_dir", str(disk / "runs")]
            done = warm_runs.start(["main.py", "predict", *config], tmp_path, SEEDLING_CACHE=str(disk / "cache"))
            assert done.wait() == 1
            assert "Traceback" not in done.said
            assert said in done.said
            assert list(disk.glob(".out*")) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)
