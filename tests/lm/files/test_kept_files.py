"""What is kept is filled once, is whole, and is made anew when a byte of it is not as it was written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from lm.files import whole_folder as room
from lm.files.kept_files import NOTE, cache_folder, find_kept, keep, kept_folder
from tests.broken_files import readable_folder, unreadable


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


class Fill:
    """Writes two files, and counts how often."""

    def __init__(self, text: str = "abc" * 2000):
        self.text, self.times = text, 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "below").mkdir()
        (folder / "below" / "one").write_text(self.text)
        (folder / "two").write_bytes(b"")


def test_a_folder_is_filled_once_with_a_note_of_its_files():
    fill = Fill("abc")
    folder = kept_folder("things/k", fill)
    assert folder == cache_folder() / "things" / "k" == kept_folder(Path("things") / "k", fill) == find_kept("things/k")
    assert fill.times == 1
    of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    files = {"below/one": {"bytes": 3, "sha256": of_abc}, "two": {"bytes": 0, "sha256": of_nothing}}
    assert json.loads((folder / NOTE).read_bytes()) == {"name": "things/k", "files": files}


def changed(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


BREAKAGES = {
    "below/one is not as it was written": lambda f: changed(f / "below/one", lambda b: b[:99] + b"x" + b[100:]),
    "two is not as it was written": lambda f: changed(f / "two", lambda b: b"\0"),
    "two is missing": lambda f: (f / "two").unlink(),
    "three does not belong there": lambda f: (f / "three").touch(),
    "kept.json is not as it was written": lambda f: changed(f / NOTE, lambda b: b[:-9]),
    "it has no kept.json": lambda f: (f / NOTE).unlink(),
    "it was kept as things/other": lambda f: (shutil.rmtree(f), shutil.copytree(keep("things/other", Fill("o")), f)),
}


@pytest.mark.parametrize("told", BREAKAGES)
def test_what_is_not_as_it_was_written_is_made_anew_with_a_line(told, capsys):
    fill = Fill()
    folder = kept_folder("things/k", fill)
    BREAKAGES[told](folder)
    assert kept_folder("things/k", fill) == folder
    assert capsys.readouterr().out == f"{folder}: {told}: it is made anew\n"
    assert fill.times == 2
    assert (folder / "below" / "one").read_text() == fill.text
    assert kept_folder("things/k", fill) == folder
    assert fill.times == 2


@pytest.mark.parametrize(
    "note", [b"[]", b"{}", b'{"name": "things/k", "files": 3}', b'{"name": 1, "files": {"two": 1}}']
)
def test_any_note_may_stand_in_its_place(note):
    fill = Fill()
    (kept_folder("things/k", fill) / NOTE).write_bytes(note)
    kept_folder("things/k", fill)
    assert fill.times == 2


@pytest.mark.parametrize("there", ["file", "broken link", "empty folder"])
def test_something_else_in_its_place_gives_way(there):
    place = cache_folder() / "things" / "k"
    place.parent.mkdir(parents=True)
    {"file": place.touch, "broken link": lambda: place.symlink_to("nowhere"), "empty folder": place.mkdir}[there]()
    assert (kept_folder("things/k", Fill()) / "two").is_file()


def test_what_breaks_off_leaves_what_was_there():
    folder = kept_folder("things/k", Fill())
    (folder / "two").unlink()
    with pytest.raises(OSError, match="no room"):
        kept_folder("things/k", lambda filling: (_ for _ in ()).throw(OSError("no room")))
    assert [path.name for path in folder.parent.iterdir()] == ["k"]
    assert sorted(path.name for path in folder.iterdir()) == ["below", NOTE]


def test_of_two_that_make_the_same_one_is_taken():
    def late(folder: Path) -> None:
        keep("things/k", Fill())  # another process is faster, between the look and the rename
        Fill()(folder)

    first = keep("things/k", late)
    assert [path.name for path in first.parent.iterdir()] == ["k"]
    assert find_kept("things/k") == first


def test_files_are_read_through_once_in_a_process(monkeypatch):
    folder = kept_folder("things/k", Fill())
    assert find_kept("things/k") == folder
    monkeypatch.setattr("lm.files.kept_files.file_sha256", lambda path: pytest.fail("read again"))
    assert find_kept("things/k") == folder


def test_they_are_on_the_disk_before_they_have_their_name(monkeypatch):
    """A loss of power may otherwise leave a name that stands for empty files."""
    seen, sync, rename = [], os.fsync, os.replace

    def synced(handle: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    monkeypatch.setattr(room.os, "fsync", synced)
    monkeypatch.setattr(room.os, "replace", lambda new, to: seen.append(f"rename to {to.name}") or rename(new, to))
    kept_folder("things/k", Fill())
    assert seen[-1] == "rename to k"
    assert {"one", "two", NOTE, "below"} <= set(seen[:-1])


@pytest.mark.parametrize("file", [NOTE, "two", "."])
def test_what_may_not_be_read_is_named(file, monkeypatch):
    with readable_folder() as folder:
        monkeypatch.setenv("SEEDLING_CACHE", str(folder))
        kept_folder("things/k", Fill())
        with unreadable(folder / "things" / "k" / file), pytest.raises(PermissionError, match="things/k"):
            find_kept("things/k")
