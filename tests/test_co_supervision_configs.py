"""Every config of co-supervision builds; the four arms train, are tested, and answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main

CONFIGS = Path(__file__).parents[1] / "configs/co_supervision"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
WORLD = "--data.init_args.corpus.init_args."
SMALL = [
    f"{WORLD}entities=8",
    f"{WORLD}tested=2",
    f"{WORLD}pairs=40",
    "--data.init_args.batch_size=8",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
]
NAMED = {"retrieval@1", "retrieval@10", "reading", "answer_em", "answer_in_passage"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def run(verb: str, name: str, *more: str) -> Path:
    """The folder of a run."""
    root = Path("runs").resolve()
    main([verb, "--config", str(CONFIGS / name), *SMALL, *CPU, f"--trainer.default_root_dir={root}", *more])
    return max(root.iterdir(), key=lambda folder: int(folder.name.removeprefix("version_")))


def scores(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("name", ["mini.yaml", "mini_ntp.yaml", "mini_nsp.yaml", "mini_separate.yaml"])
def test_arms_train_and_are_tested(name):
    fitted = scores(run("fit", name))
    assert ("train/nsp_loss" in fitted) is (name != "mini_ntp.yaml")
    folder = run("test", name, "--ckpt_path=last")
    found = scores(folder)
    assert all(f"{score}{part}" in found for score in NAMED for part in ("", "/seen", "/unseen"))
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == found["questions"] == 24
    assert (folder / "report.md").read_text().startswith("# Answers that cite")
    if name != "mini.yaml":
        return
    again = run("predict", name, "--ckpt_path=last")  # what was written in the test is in the cache
    told = [json.loads(line) for line in (again / "answers.jsonl").read_text().splitlines()]
    assert [line["output"] for line in told] == [line["output"] for line in lines]
    assert {"id", "question", "output", "raw_output", "retrieved", "n_tokens", "finish_reason"} == told[0].keys()
