"""A folder is under its name when it is complete: never half, and never for a moment missing."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lm.files import whole_folder as room
from lm.files.whole_folder import whole_folder
from text.errors import UserError


def test_the_old_folder_stands_until_the_new_one_does(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    seen = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: seen.append(self.name) or rename(self, to))
    with pytest.raises(UserError, match="not empty"), whole_folder(out):
        pass
    with whole_folder(out, overwrite=True) as filling:
        (filling / "new").touch()
        assert [path.name for path in out.iterdir()] == ["old"]
    assert [path.name for path in out.iterdir()] == ["new"]
    assert seen == []  # renames one after the other would leave a moment without either
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~room._umask()


def test_where_the_system_cannot_exchange_them_both_are_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(room.ctypes, "CDLL", lambda name: object())
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with whole_folder(out, overwrite=True) as filling:
        (filling / "new").touch()
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_fails_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(FileNotFoundError), whole_folder(out, overwrite=True) as filling:
        (filling / "new" / "half").touch()
    assert [path.name for path in out.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_fills_is_not(tmp_path):
    killed = """
import os, signal, sys
from pathlib import Path
from lm.files.whole_folder import whole_folder
with whole_folder(Path(sys.argv[1])) as filling:
    (filling / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "out")], cwd=Path(__file__).parents[3], check=False)
    [left] = tmp_path.iterdir()
    elsewhere = tmp_path / f".out.another-machine.{left.name.split('.')[-2]}.abc"
    alive = tmp_path / f".out.{platform.node()}.{os.getppid()}.abc"
    of_another = tmp_path / left.name.replace(".out.", ".outer.")
    for folder in (elsewhere, alive, of_another):
        folder.mkdir()
    with whole_folder(tmp_path / "out") as filling:
        (filling / "new").touch()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "out", elsewhere, alive, of_another])


def test_a_file_of_that_name_is_never_replaced(tmp_path):
    mine = tmp_path / "notes"
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"notes' is a file; give another name$"), whole_folder(mine, overwrite=True):
        pass
    assert mine.read_text() == "mine"


def test_a_disk_that_refuses_is_told_by_the_name_that_was_given(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / ".out.host.1.xyz"))

    monkeypatch.setattr(room.tempfile, "mkdtemp", refuse)
    with pytest.raises(OSError, match="Read-only") as error, whole_folder(tmp_path / "out"):
        pass
    assert error.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
