"""A Pegasus fit on one process and on two, with and without accumulation: the same steps, files left out included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests import warm_runs
from tests.clips import clip
from tests.conversation_files import jsonl
from tests.lm.vision.test_vision import SMALL
from tests.stand_ins import LLAMA
from tests.tiny_runs import logged_numbers
from tests.warm_runs import ranks

pytestmark = pytest.mark.slow

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
VISION = {"class_path": "ScratchVision", "init_args": {"architecture": "siglip_vision_model", "config": SMALL}}
SCRATCH = {
    "class_path": "ScratchBackbone",
    "init_args": {"architecture": "llama", "config": LLAMA | {"max_position_embeddings": 128}},
}
TIMED = ("train/tokens", "train/tokens_per_s", "step", "epoch")  # cut trees share less


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten records: clips of different length, two of text alone, one image, one file that is no video."""
    folder = tmp_path_factory.mktemp("pegasus_ranks")
    clips = [clip(folder, 20 + 10 * n, f"{n}.mp4", height=64) for n in range(3)]
    (folder / "words.mp4").write_text("no video " * 100)
    shown: list[dict[str, Any]] = [{"video": str(clips[n % 3])} for n in range(6)]
    shown += [{}, {}, {"image": str(clips[0])}, {"video": str(folder / "words.mp4")}]
    asked = [
        [{"question": f"what {q} ?", "answer": "it is " + "so " * (n % 4)} for q in range(1 + n % 3)] for n in range(10)
    ]
    jsonl(folder / "records.jsonl", *({"id": str(n), **shown[n], "questions": asked[n]} for n in range(10)))
    return folder


def fit(folder: Path, root: str, *arguments: str) -> Path:
    """Run ``main.py fit`` for three steps; returns its run folder."""
    words = {"class_path": "WordTokenizer", "init_args": {"eos_token": "<end>"}}
    source = str(folder / "records.jsonl")
    data = {"train": source, "val": source, "tokenizer": words, "batch_size": 4, "sampling": {"frames": 4}}
    data |= {"on_bad_video": "skip", "max_bad_share": 0.2}
    model = {"backbone": SCRATCH, "vision": VISION, "optimizer": SGD, "max_tokens": 16}
    quiet = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    skipped = {"callbacks": [{"class_path": "SkippedVideos"}]}
    config = {
        "seed_everything": 1,
        "model": {"class_path": "Pegasus", "init_args": model},
        "data": {"class_path": "Videos", "init_args": data},
        "trainer": quiet
        | skipped
        | {"max_steps": 3, "default_root_dir": str(folder / root), "val_check_interval": 1.0},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    warm_runs.run(["main.py", "fit", "--config", "run.yaml", *arguments], folder, ranks=ranks(arguments))
    return folder / root / "version_0"


def test_two_ranks_take_the_steps_of_one(folder: Path):
    one = fit(folder, "one")
    expected = open_checkpoint(find_checkpoint(one))["state_dict"]
    assert any(name.startswith("vision.") for name in expected)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    for root, cut in {"ranks": two, "both": [*two, "--trainer.accumulate_grad_batches=2"]}.items():
        run = fit(folder, root, *cut)
        torch.testing.assert_close(open_checkpoint(find_checkpoint(run))["state_dict"], expected, atol=1e-6, rtol=0)
        for row, other in zip(logged_numbers(run, TIMED), logged_numbers(one, TIMED), strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
        rows = [json.loads(line) for file in run.glob("skipped*.jsonl") for line in file.read_text().splitlines()]
        assert {(row["id"], row["kind"]) for row in rows} == {("9", "unreadable")}  # of training, and of validation
