"""A file is under its name when all of it is written, or as it was before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from text.whole_files import file_sha256, private_prefix, whole_file, write_text


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    write_text(file, "old\n")
    with whole_file(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old\n"
        assert partial.parent == tmp_path
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


@pytest.mark.parametrize("before", ["old", None])
def test_what_breaks_off_leaves_nothing_behind(tmp_path: Path, before: str | None) -> None:
    file = tmp_path / "report.md"
    if before is not None:
        write_text(file, before)
    with pytest.raises(RuntimeError, match="in the middle"):
        break_off(file)
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == ({} if before is None else {file.name: before})


def break_off(file: Path) -> None:
    with whole_file(file) as partial:
        partial.write_text("half")
        raise RuntimeError("in the middle")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_processes_that_write_the_same_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.md"
    with whole_file(file) as ours:
        ours.write_text("ours")
        monkeypatch.setattr("os.getpid", lambda: 1)
        with whole_file(file) as theirs:
            assert theirs != ours
            theirs.write_text("theirs")
        assert file.read_text() == "theirs"
    assert file.read_text() == "ours"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    """It was killed without a chance to clear up; whoever lives is left alone."""
    file = tmp_path / "report.md"
    code = (
        "import os, pathlib; from text.whole_files import whole_file\n"
        f"with whole_file(pathlib.Path({str(file)!r})) as partial:\n    partial.touch(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    of_a_living = file.with_name(f"{private_prefix(file)}{os.getppid()}.partial")
    of_a_living.touch()
    write_text(file, "new")
    assert {*tmp_path.iterdir()} == {file, of_a_living}
