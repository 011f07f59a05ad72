"""One process writes into a folder; a lock whose owner is gone holds nobody up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callbacks.run_lock import LOCK, _take_away, lock, unlock
from text.errors import UserError


def test_a_folder_is_locked_once_and_given_back(tmp_path):
    lock(tmp_path)
    with pytest.raises(UserError, match=rf"is being written by process {os.getpid()} on .* delete .*{LOCK}"):
        lock(tmp_path)
    unlock(tmp_path)
    assert [*tmp_path.iterdir()] == []
    unlock(tmp_path)


def owner(folder, **changes):
    lock(folder)
    mine = json.loads((folder / LOCK).read_text())
    (folder / LOCK).write_text(json.dumps(mine | changes))


def test_another_process_that_lives_keeps_it_and_one_that_is_gone_does_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        owner(tmp_path, pid=process.pid, started=started)
        with pytest.raises(UserError, match=f"process {process.pid} "):
            lock(tmp_path)
        unlock(tmp_path)
        assert (tmp_path / LOCK).exists()  # it is not ours
        process.kill()
    lock(tmp_path)
    unlock(tmp_path)


@pytest.mark.parametrize("changes", [{"started": "1"}, {"pid": "none"}, {"pid": 2**22 + 1}])
def test_a_number_that_is_another_process_by_now_is_no_owner(tmp_path, changes):
    owner(tmp_path, **changes)
    lock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("seen", [None, {"host": "here", "pid": 1, "started": "0"}])
def test_of_two_that_see_a_lock_without_an_owner_one_does_not_take_that_of_the_other(tmp_path, seen):
    lock(tmp_path)  # the other, which was faster
    before = (tmp_path / LOCK).read_text()
    _take_away(tmp_path / LOCK, seen)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {LOCK: before}


def test_a_lock_that_was_cut_off_holds_nobody_up(tmp_path):
    (tmp_path / LOCK).write_text("{")
    lock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_another_machine_cannot_be_asked_but_a_requeued_job_is_its_own_successor(tmp_path, monkeypatch):
    owner(tmp_path, host="elsewhere", job="7")
    with pytest.raises(UserError, match="on elsewhere"):
        lock(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(UserError, match="on elsewhere"):
        lock(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    lock(tmp_path)
