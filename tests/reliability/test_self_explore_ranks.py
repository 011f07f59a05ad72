"""Solving and exploring on one, two and three processes, and killed and started again: the same bytes."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from tests import warm_runs
from tests.small_stages import SMALL_STAGE
from tests.warm_runs import ROOT

pytestmark = pytest.mark.slow

SMALL = ["--trainer.accelerator=cpu", *SMALL_STAGE]


def start(folder: Path, stage: str, ranks: int, *options: str) -> warm_runs.Run:
    """A stage, on its way."""
    call = ["main.py", "predict", "--config", str(ROOT / f"configs/self_explore/{stage}.yaml")]
    call += [
        *SMALL,
        *options,
        f"--trainer.devices={ranks}",
        f"--trainer.default_root_dir={folder / stage / str(ranks)}",
    ]
    call += ["--trainer.strategy=ddp"] * (ranks > 1)
    return warm_runs.start(call, folder, ranks, SEEDLING_CACHE=str(folder / f"cache{ranks}"))


def run(folder: Path, stage: str, ranks: int, *options: str) -> Path:
    done = start(folder, stage, ranks, *options)
    assert done.wait() == 0, done.said[-8000:]
    return max((folder / stage / str(ranks)).glob("version_*"), key=lambda version: int(version.name.split("_")[1]))


def kill_after(folder: Path, stage: str, results: int, *options: str) -> None:
    """Kills the stage outright once the cache has so many results more."""

    def kept() -> int:
        return sum(file.read_bytes().count(b'"key"') for file in folder.glob("cache1/rollouts/*.jsonl"))

    before = kept()
    job = start(folder, stage, 1, *options)
    while kept() < before + results:
        assert not job.ended(), job.said[-6000:]
        time.sleep(0.005)
    job.kill()


def pairs_file(folder: Path) -> str:
    """Pairs to explore; answers of one digit are right by chance now and then."""
    rows = [
        {
            "id": f"q{n}-0",
            "question_id": f"q{n}",
            "prompt": f"0{n}+1=?\n",
            "chosen": f"A{n}",
            "rejected": "x\ny\nA99",
            "gold": f"{n}",
        }
        for n in range(8)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"--data.init_args.pairs={folder / 'pairs.jsonl'}"


@pytest.mark.parametrize(
    ("stage", "names"), [("sample", ("samples", "rft", "pairs")), ("explore", ("explorations", "gpairs"))]
)
def test_killed_at_random_points_it_goes_on_and_writes_the_same_bytes(tmp_path, stage, names):
    rng = random.Random(stage)
    options = ["--data.init_args.questions=1", *([pairs_file(tmp_path)] if stage == "explore" else [])]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = run(whole, stage, 1, *options)
    for _ in range(2):
        kill_after(broken, stage, rng.randint(1, 3), *options)
    found = run(broken, stage, 1, *options)
    for name in names:
        assert (found / f"{name}.jsonl").read_bytes() == (expected / f"{name}.jsonl").read_bytes()
    [file] = broken.glob("cache1/rollouts/*.jsonl")
    keys = [json.loads(line)["key"] for line in file.read_bytes().splitlines()[1:]]
    assert len(keys) == len(set(keys))  # nothing was drawn twice
    [of_whole] = whole.glob("cache1/rollouts/*.jsonl")
    assert sorted(file.read_bytes().splitlines()) == sorted(of_whole.read_bytes().splitlines())


def test_any_number_of_ranks_writes_the_same_bytes(tmp_path):
    for stage, names, options in (
        ("sample", ("samples", "rft", "pairs"), ()),
        ("explore", ("explorations", "gpairs"), (pairs_file(tmp_path),)),
    ):
        found = [run(tmp_path, stage, ranks, *options) for ranks in (1, 2, 3)]
        for name in names:
            one, *more = ((folder / f"{name}.jsonl").read_bytes() for folder in found)
            assert all(other == one for other in more), (stage, name)
        assert (found[0] / f"{names[0]}.jsonl").stat().st_size > 1000
