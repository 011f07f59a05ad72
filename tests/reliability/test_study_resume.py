"""A study that is killed goes on: what has finished never runs again, what was half done continues to the same bits."""

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from studies.sources import PRODUCT
from tests.knowledge_runs import TINY

PROJECT = Path(__file__).resolve().parents[2]

CONFIG = {
    "model": TINY["model"],
    "data": {
        "class_path": "Corpus",
        "init_args": {
            "train": {"class_path": "worlds.Biographies", "init_args": {"people": 20, "documents": 200, "facts": 4}},
            "tokenizer": {"class_path": "BPETokenizer", "init_args": {"vocab_size": 300}},
            "seq_len": 32,
            "batch_size": 4,
            "long_passage": "truncate",
            "scenario_assignment": "crossed",
        },
    },
    "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 20, "limit_val_batches": 4},
    "checkpoint": {"every_n_train_steps": 5},
}
STUDY = {
    "claim": "A larger step goes further",
    "paper": None,
    "seeds": [1, 2],
    "development_settings_tried": 0,
    "stages": {
        "base": {"verb": "fit", "configs": "mini.yaml"},
        "train": {
            "verb": "fit",
            "configs": "mini.yaml",
            "set": {"data.seed": "{seed}", "ckpt_path": "{ckpt:base}", "trainer.max_steps": 420},
            "needs": ["base"],
        },
        "measure": {
            "verb": "validate",
            "configs": "mini.yaml",
            "set": {"ckpt_path": "{ckpt:train}"},
            "needs": ["train"],
        },
    },
    "arms": {
        "small": {"stages": ["base", "train", "measure"]},
        "large": {
            "stages": ["base", "train", "measure"],
            "set": {"train": {"model.optimizer.lr": 0.01}},
        },
    },
    "statistic": {"metric": "val/loss", "contrast": "large - small"},
    "criterion": {"direction": "less"},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Makes copies of the project that hold this study."""
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))

    def make(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        for part in [*PRODUCT, "studies", "reproduce.py"]:
            copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
            copy(PROJECT / part, root / part)
        folder = root / "configs/tiny"
        folder.mkdir(parents=True)
        (folder / "mini.yaml").write_text(yaml.safe_dump(CONFIG))
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
        return root

    return make


def start(root: Path) -> subprocess.Popen:
    log = (root / "screen.txt").open("a")
    return subprocess.Popen([sys.executable, "reproduce.py", "tiny"], cwd=root, stdout=log, stderr=log)


def finish(root: Path) -> dict:
    assert start(root).wait(timeout=600) == 0, (root / "screen.txt").read_text()
    return json.loads((root / "runs/tiny/report.json").read_text())


def finished(root: Path) -> dict[str, int]:
    """When each finished stage finished, by its folder."""
    markers = (root / "runs/tiny/stages").glob("*/version_0/metrics.json")
    return {marker.parents[1].name: marker.stat().st_mtime_ns for marker in markers}


def saved(root: Path) -> float:
    """When a stage last saved its state."""
    times = [0.0]
    for checkpoint in (root / "runs/tiny/stages").glob("*/version_0/checkpoints/*.ckpt"):
        with suppress(FileNotFoundError):  # replaced by the next one just now
            times.append(checkpoint.stat().st_mtime)
    return max(times)


@pytest.mark.slow
def test_a_killed_study_ends_as_if_it_had_not_been_killed(project):
    whole = finish(project("whole"))
    root = project("killed")
    chance = random.Random(6)
    for kill in range(6):
        before, last_saved = finished(root), saved(root)
        study = start(root)
        while saved(root) == last_saved and kill:  # the first one dies before there is anything to go on from
            assert study.poll() is None, (root / "screen.txt").read_text()
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 2.0))
        study.kill()
        study.wait()
        time.sleep(0.3)  # the worker follows its parent; it may just have finished a stage
        after = finished(root)
        assert {name: after[name] for name in before} == before, "a finished stage ran again"
    report = finish(root)

    assert len(finished(root)) == 9
    logs = [log.read_text() for log in (root / "runs/tiny/stages").glob("*/log.txt")]
    assert sum(log.count("Going on in") for log in logs) >= 3, "too few of the kills came in the middle of a fit"
    for ours, theirs in zip(report["claims"], whole["claims"], strict=True):
        assert ours["estimate"] == theirs["estimate"]
        assert ours["arms"] == theirs["arms"]
    assert report["claims"][0]["notes"] == [], "every seed and arm has its own numbers"
