"""A process that is asked within limits: what goes beyond them is ended, and the next is answered by a new one."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys

import pytest

from text.limited_process import ROOT, LimitedProcess, LimitReached

SERVES = """
import os, signal, time
from text.limited_process import serve

def answer(asked):
    what, *more = asked
    if what == "echo":
        print("noise")
        return more
    if what == "spin":
        while True:
            pass
    if what == "sleep":
        time.sleep(60)
    if what == "end":
        os._exit(3)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    try:
        return len(bytearray(more[0]))
    except MemoryError:
        return "too much"

serve(answer, 64 << 20)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("process") / "serves.py"
    path.write_text(SERVES)
    return path


@pytest.fixture(scope="module")
def process(file):
    return LimitedProcess(file)


@pytest.mark.parametrize(
    ("asked", "seconds", "told"),
    [
        ("spin", 0.1, "it runs longer than 0.1 seconds"),
        ("sleep", 0.05, "it runs longer than 0.05 seconds"),  # by the clock of the caller: it computes nothing
        ("end", 5, "its process came to an end over it$"),
        ("crash", 5, r"its process came to an end over it \(SIGSEGV\)"),
    ],
)
def test_what_goes_beyond_a_limit_is_ended_and_the_next_is_answered(process, asked, seconds, told):
    with pytest.raises(LimitReached, match=told):
        process.ask([asked], seconds)
    assert process.ask(["echo", "x" * 300_000, None, 1.5], 5) == ["x" * 300_000, None, 1.5]  # more than a pipe holds


def test_memory_ends_where_it_was_said(process):
    assert process.ask(["memory", 1 << 20], 5) == 1 << 20
    before = process._process
    assert process.ask(["memory", 128 << 20], 5) == "too much"
    assert process.ask(["echo"], 5) == []
    assert process._process is before


def test_one_that_ended_while_nobody_asked_is_started_again(process):
    process.ask(["echo"], 5)
    process._process.kill()
    process._process.wait()
    assert process.ask(["echo", 1], 5) == [1]


def test_signals_to_the_group_do_not_end_it(process):
    process.ask(["echo"], 5)
    before = process._process
    for stop in (signal.SIGINT, signal.SIGTERM):
        before.send_signal(stop)
    assert process.ask(["echo", 1], 5) == [1]
    assert process._process is before


def test_it_ends_itself_when_its_caller_is_gone(file):
    call = [sys.executable, str(file)]
    for asked, code in (("spin", -signal.SIGPROF), ("echo", 0)):
        done = subprocess.run(
            call,
            input=json.dumps([0.1, [asked]]) + "\n",
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert done.stdout.split() == ["true", "[]"][: 1 + (code == 0)]  # no noise


def test_copies_start_processes_of_their_own(process):
    process.ask(["echo"], 5)
    for twin in (copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
        assert twin._process is None
        assert twin.file == process.file


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_asks_a_process_of_its_own_whoever_held_the_lock(process):
    process.ask(["echo"], 5)
    before = process._process
    with process._lock:  # as another thread might
        if not (child := os.fork()):
            own = process.ask(["echo", 1], 5) == [1] and process._process is not before
            process._process.kill()
            os._exit(0 if own else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert process.ask(["echo", 2], 5) == [2]
    assert process._process is before


def test_one_that_does_not_start_says_how_to_look(tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit(1)")
    with pytest.raises(RuntimeError, match=r"does not start: try .*broken\.py"):
        LimitedProcess(tmp_path / "broken.py").ask([], 5)
