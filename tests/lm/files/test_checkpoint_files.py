"""Damage is seen before anything is trained on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lm.files import checkpoint_files
from lm.files.checkpoint_files import by_step, damage, read_header, write_checksums

ROOT = Path(__file__).parents[3]


def saved(path: Path, step: int = 3) -> Path:
    torch.save({"global_step": step, "weights": torch.arange(20_000, dtype=torch.float32)}, path)
    return path


@pytest.mark.parametrize("where", range(12))
def test_a_zeroed_page_anywhere_in_a_file_is_seen(tmp_path, where):
    path = saved(tmp_path / "a.ckpt")
    assert damage(path) is None
    whole = path.read_bytes()
    begin = where * (len(whole) - 4096) // 11
    broken = whole[:begin] + b"\0" * 4096 + whole[begin + 4096 :]
    path.write_bytes(broken)
    assert damage(path) is not None or read_header(path) is None or _same(path, whole, tmp_path)


def _same(path: Path, whole: bytes, folder: Path) -> bool:
    """Whether what was zeroed is padding between the parts of the archive, of which nothing is read."""
    (folder / "whole").write_bytes(whole)
    one, other = (torch.load(file, weights_only=True) for file in (path, folder / "whole"))
    return torch.equal(one["weights"], other["weights"]) and one["global_step"] == other["global_step"]


def test_one_bit_of_a_weight_is_seen(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    whole = bytearray(path.read_bytes())
    place = whole.index(torch.tensor([17.0, 18.0]).numpy().tobytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    assert read_header(path) is not None  # torch reads it
    assert "is not as it was written" in damage(path)


@pytest.mark.parametrize("cut", [1, 30, 5000])
def test_what_was_cut_off_is_seen(tmp_path, cut):
    path = saved(tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes()[:-cut])
    assert damage(path) is not None or read_header(path) is None


def test_shards_are_held_against_their_hashes(tmp_path):
    folder = tmp_path / "last.ckpt"
    folder.mkdir()
    saved(folder / "meta.pt", step=7)
    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata"):
        (folder / name).write_bytes(name.encode() * 999)
    (folder / "checksums.1.json").write_bytes(
        b"{"
    )  # what the other rank is writing meanwhile is not the first's to note
    write_checksums(folder, 0)
    write_checksums(folder, 1)
    assert damage(folder) is None
    assert read_header(folder)["global_step"] == 7
    shard = (folder / "__1_0.distcp").read_bytes()
    (folder / "__1_0.distcp").write_bytes(shard[:-1] + b"?")
    assert damage(folder) == "__1_0.distcp is not as it was written"
    (folder / "checksums.1.json").rename(tmp_path / "aside")  # of a copy that was broken off, say
    assert damage(folder) == "nothing tells how __1_0.distcp was written"
    (tmp_path / "aside").rename(folder / "checksums.1.json")
    (folder / "__1_0.distcp").unlink()
    assert damage(folder) == "__1_0.distcp is missing"
    (folder / "checksums.0.json").write_bytes(b"{")
    assert damage(folder) == "checksums.0.json is not as it was written"


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_whole_is_read_once_also_by_processes_that_are_started(tmp_path, monkeypatch, sharded):
    path = saved(tmp_path / "a.ckpt")
    if sharded:
        (folder := tmp_path / "b.ckpt").mkdir()
        path = saved(folder / "meta.pt").parent
        write_checksums(folder, 0)
    for file in (path, *path.glob("*")):
        os.utime(file, (1, 1))
    reads = []
    for name in ("_damaged_file", "_damaged_shards"):
        real = getattr(checkpoint_files, name)
        monkeypatch.setattr(checkpoint_files, name, lambda at, real=real: reads.append(at) or real(at))
    monkeypatch.setenv(checkpoint_files.WHOLE, "")
    assert [damage(path), damage(path)] == [None, None]
    assert len(reads) == 1
    told = "import sys, pathlib, lm.files.checkpoint_files as c; c.zipfile = c.file_sha256 = None; "
    told += "print(c.damage(pathlib.Path(sys.argv[1])))"
    started = subprocess.run(
        [sys.executable, "-c", told, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert started.stdout == "None\n"
    file = path / "meta.pt" if sharded else path
    file.touch()  # just written: it may be written again at what is the same time to the system
    assert [damage(path), damage(path)] == [None, None]
    assert len(reads) >= 3
    file.write_bytes(file.read_bytes()[:-100])
    assert damage(path) is not None
    assert damage(path) is not None  # what is damaged is not remembered


def test_checkpoints_by_step_then_by_time(tmp_path):
    for name, step, written in (("a", 5, 1), ("b", 3, 9), ("c", 5, 2)):
        os.utime(saved(tmp_path / name, step), (written, written))
    (tmp_path / "d").write_bytes(b"no checkpoint")
    torch.save({"global_step": "many"}, tmp_path / "e")
    assert [path.name for path in by_step(tmp_path.iterdir())] == ["c", "a", "b"]


def test_checkpoints_that_vanish_meanwhile_are_passed_over(tmp_path, monkeypatch):
    for step in (1, 2):
        saved(tmp_path / str(step), step)
    real = checkpoint_files.read_header

    def read(path):
        header = real(path)
        (tmp_path / "2").unlink(missing_ok=True)  # the run that writes them deletes what is outdated
        return header

    monkeypatch.setattr(checkpoint_files, "read_header", read)
    assert [path.name for path in by_step([tmp_path / "2", tmp_path / "1"])] == ["1"]
