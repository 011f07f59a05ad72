"""Solving and exploring on one, two and three processes: the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rapidfuzz")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = [
    "--trainer.accelerator=cpu",
    "--model.init_args.backbone.config={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, "
    "num_attention_heads: 2, max_position_embeddings: 96}",
    "--model.init_args.decoding.max_new_tokens=12",
    "--data.init_args.train.init_args.train=20",
    "--data.init_args.train.init_args.answer_only=3",
    "--data.init_args.questions=3",
    "--seed_everything=1",
]


def run(folder: Path, stage: str, ranks: int, *options: str) -> Path:
    call = [
        sys.executable,
        str(ROOT / "main.py"),
        "predict",
        "--config",
        str(ROOT / f"configs/self_explore/{stage}.yaml"),
    ]
    call += [
        *SMALL,
        *options,
        f"--trainer.devices={ranks}",
        f"--trainer.default_root_dir={folder / stage / str(ranks)}",
    ]
    call += ["--trainer.strategy=ddp"] * (ranks > 1)
    environment = os.environ | {"SEEDLING_CACHE": str(folder / f"cache{ranks}"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder / stage / str(ranks) / "version_0"


def test_any_number_of_ranks_writes_the_same_bytes(tmp_path):
    # Answers of one digit are right by chance now and then.
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
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stage, names, options in (
        ("sample", ("samples", "rft", "pairs"), ()),
        ("explore", ("explorations", "gpairs"), (f"--data.init_args.pairs={tmp_path / 'pairs.jsonl'}",)),
    ):
        found = [run(tmp_path, stage, ranks, *options) for ranks in (1, 2, 3)]
        for name in names:
            one, *more = ((folder / f"{name}.jsonl").read_bytes() for folder in found)
            assert all(other == one for other in more), (stage, name)
        assert (found[0] / f"{names[0]}.jsonl").stat().st_size > 1000
