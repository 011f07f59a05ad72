"""A benchmark that is killed while it answers goes on from its log to the identical report; so do two ranks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests import warm_runs
from tests.warm_runs import ROOT, ranks

RUN = ["main.py", "test", "--config", str(ROOT / "configs/biggen_bench/mini.yaml")]
SMALL = ["--data.batch_size=4", "--data.instances.init_args.instances=10", "--model.decoding.temperature=1.0"]
CPU = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]

pytestmark = pytest.mark.slow


def command(folder: str, log: str, *more: str) -> list[str]:
    return [*RUN, *SMALL, *CPU, f"--trainer.default_root_dir={folder}", f"--model.kept_answers={log}", *more]


def lines(log: Path) -> int:
    """How many answers are kept; the first line of a file says whose they are."""
    return sum(path.read_bytes().count(b'"key"') for path in log.glob("answers.*.jsonl"))


def outcome(folder: Path, number: int = 0) -> tuple[dict, str, str]:
    run = folder / f"version_{number}"
    report = run / "bench"
    return (
        json.loads((run / "metrics.json").read_text()),
        (report / "report.md").read_text(),
        (report / "instances.jsonl").read_text(),
    )


def run(tmp_path: Path, *arguments: str) -> None:
    warm_runs.run(command(*arguments), tmp_path, ranks(arguments))


def test_a_killed_run_goes_on_to_the_identical_report(tmp_path):
    run(tmp_path, "whole", "log_of_whole")
    killed = warm_runs.start(command("killed", "log"), tmp_path)
    deadline = time.monotonic() + 200
    while lines(tmp_path / "log") < 8:
        assert not killed.ended(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.kill()
    there = lines(tmp_path / "log")
    assert 8 <= there < 120
    assert not (tmp_path / "killed" / "version_0" / "metrics.json").exists()
    run(tmp_path, "killed", "log")
    assert outcome(tmp_path / "killed", 1) == outcome(tmp_path / "whole")
    assert lines(tmp_path / "log") == 120


def test_two_ranks_come_to_the_report_of_one(tmp_path):
    run(tmp_path, "one", "log_one")
    run(tmp_path, "two", "log_two", "--trainer.devices=2", "--trainer.strategy=ddp")
    assert outcome(tmp_path / "two") == outcome(tmp_path / "one")
    ranks = [path.suffixes[-2] for path in (tmp_path / "log_two").glob("answers.*.jsonl")]
    assert sorted(ranks) == [".rank0", ".rank1"]
