"""What every test stands on: one thread, no network; with ``--status``, a record of what was tested."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from tests import status

# A push is judged by the same examples every time; at a desk each run looks at new ones. Neither is judged by a clock:
# the library's deadline of 200 ms an example fails on a busy machine, where a kept file waits for the disk.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--status", action="store_true", help="rewrite docs/status.md from what the tests did")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "oracle(*names): the test compares these options with an independent truth")
    if config.getoption("--status"):
        config.stash[RECORDER] = status.Recorder()
        config.stash[RECORDER].watch()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole fast or slow suite, or both; a part of them runs in this one."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 if whole and config.option.markexpr in ("not slow", "slow", "") else 0


RECORDER = pytest.StashKey[status.Recorder]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    recorder = item.config.stash.get(RECORDER, None)
    if recorder is not None and report.when == "call":
        names = [name for marker in item.iter_markers("oracle") for name in marker.args]
        recorder.finish(report.passed, names)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    recorder = session.config.stash.get(RECORDER, None)
    if recorder is not None and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["status"] = [sorted(recorder.run), sorted(recorder.oracle)]
    elif recorder is not None:
        status.PAGE.write_text(status.page(recorder.run, recorder.oracle))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has run its tests: what it noted is put together where the page is written."""
    recorder = node.config.stash.get(RECORDER, None)
    if recorder is not None:
        run, oracle = node.workeroutput["status"]
        recorder.run |= {*run}
        recorder.oracle |= {*oracle}
