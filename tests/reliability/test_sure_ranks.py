"""SuRe on one and on two processes, and killed outright and started again: the same bytes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests import warm_runs
from tests.warm_runs import ROOT

pytestmark = pytest.mark.slow

SMALL = [
    "--trainer.accelerator=cpu",
    "--data.init_args.test.init_args.questions=7",
    "--data.init_args.test.init_args.test_facts=4",
    "--data.init_args.n_passages=4",
    "--data.init_args.batch_size=2",
    "--model.init_args.pipeline.k=2",
    "--model.init_args.pipeline.pool=8",
    "--seed_everything=1",
]
FILES = ("answers.jsonl", "tasks.jsonl")


def start(folder: Path, verb: str, ranks: int = 1, cache: str = "cache") -> warm_runs.Run:
    """A run on its way."""
    call = ["main.py", verb, "--config", str(ROOT / "configs/sure/mini_test.yaml"), *SMALL]
    call += [f"--trainer.devices={ranks}", f"--trainer.default_root_dir={folder / f'{verb}{ranks}'}"]
    call += ["--trainer.strategy=ddp"] * (ranks > 1)
    return warm_runs.start(call, folder, ranks, SEEDLING_CACHE=str(folder / cache))


def run(folder: Path, verb: str, ranks: int = 1, cache: str = "cache") -> Path:
    done = start(folder, verb, ranks, cache)
    assert done.wait() == 0, done.said[-8000:]
    found = (folder / f"{verb}{ranks}").glob("version_*")
    return max(found, key=lambda version: int(version.name.split("_")[1]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("whole"), "predict")


def test_killed_while_it_answers_it_goes_on_to_the_same_bytes(tmp_path, whole):
    def kept() -> int:
        return sum(file.read_bytes().count(b'"key"') for file in (tmp_path / "cache/rollouts").glob("*.jsonl"))

    for more in (20, 30):
        before, job = kept(), start(tmp_path, "predict")
        while kept() < before + more:
            assert not job.ended(), job.said[-6000:]
            time.sleep(0.005)
        job.kill()
    done = run(tmp_path, "predict")
    assert [(done / name).read_bytes() for name in FILES] == [(whole / name).read_bytes() for name in FILES]


def test_two_ranks_write_what_one_does(tmp_path, whole):
    two = run(tmp_path, "predict", 2, "cache2")
    assert [(two / name).read_bytes() for name in FILES] == [(whole / name).read_bytes() for name in FILES]
    one, both = (json.loads((run(tmp_path, "test", n, "cache2") / "metrics.json").read_text()) for n in (1, 2))
    assert one == both
    assert one["questions"] == 7
