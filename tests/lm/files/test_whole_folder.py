"""A folder is under its name when it is complete: never half, and never for a moment missing."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lm.files import whole_folder as room
from lm.files.whole_folder import put_in_place, take_up, whole_folder
from text.errors import UserError


def test_the_old_folder_stands_until_the_new_one_does(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    seen = []
    replace = os.replace
    monkeypatch.setattr(room.os, "replace", lambda new, to: seen.append(new) or replace(new, to))
    with pytest.raises(UserError, match="not empty"), whole_folder(out):
        pass
    with whole_folder(out, overwrite=True) as filling:
        (filling / "new").touch()
        assert [path.name for path in out.iterdir()] == ["old"]
    assert [path.name for path in out.iterdir()] == ["new"]
    assert seen == []  # renames one after the other would leave a moment without either
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~room._umask()


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_have_the_mode_that_the_user_gives_to_files(tmp_path, mask):
    """safetensors writes through private temporary files; a program stays one, and links are not followed."""
    before = os.umask(mask)
    try:
        (tmp_path / "beside").touch(0o600)
        with whole_folder(tmp_path / "out") as filling:
            save_file({"a": torch.ones(1)}, filling / "a.safetensors")
            (filling / "below").mkdir()
            (filling / "below" / "run.sh").touch(0o700)
            (filling / "link").symlink_to(tmp_path / "beside")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert modes == {"a.safetensors": 0o666 & ~mask, "below": 0o777 & ~mask, "run.sh": 0o700 & ~mask, "link": 0o600}


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("was", ["file", "folder", None])
@pytest.mark.parametrize("becomes", ["file", "folder"])
def test_whatever_stood_under_a_name_gives_way(tmp_path, monkeypatch, was, becomes, exchanges):
    def made(path, kind):
        path.mkdir() if kind == "folder" else path.write_text("x")
        return path

    if not exchanges:
        monkeypatch.setattr(room.ctypes, "CDLL", lambda name: object())
    if was:
        made(tmp_path / "it", was)
    put_in_place(made(tmp_path / ".it.partial", becomes), tmp_path / "it")
    assert (tmp_path / "it").is_dir() == (becomes == "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_one_that_is_killed_between_two_renames_loses_nothing(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(room.ctypes, "CDLL", lambda name: object())
    left, steps = [moment], (os.replace, room.remove)

    def until(step):
        def does(*paths):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            step(*paths)

        return does

    new, out = tmp_path / "new", tmp_path / "out"
    for folder in (new, out):
        folder.mkdir()
        (folder / folder.name).touch()
    monkeypatch.setattr(room.os, "replace", until(steps[0]))
    monkeypatch.setattr(room, "remove", until(steps[1]))
    with pytest.raises(KeyboardInterrupt):
        put_in_place(new, out)
    monkeypatch.undo()
    take_up(out)
    assert [path.name for path in out.iterdir()] == ["new" if moment == 3 else "out"]
    assert not (tmp_path / ".out.old").exists()


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
from lm.files.whole_folder import put_in_place, take_up, whole_folder
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
