"""Compiled blocks in a whole fit: dense rows, probes on forests, validation, a checkpoint; the same numbers."""

import json
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cli.trainer_cli import main
from tests.knowledge_runs import TINY, trace
from tests.tiny_runs import csv_rows

STEPS = 7  # the first facts come at step 4


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Runs the tiny config without dropout, whose draws a compiled kernel makes in another order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))

    def run(name: str, compiled: bool) -> Path:
        config = deepcopy(TINY)
        backbone = config["model"]["init_args"]["backbone"]["init_args"]
        backbone["config"]["attention_dropout"] = 0.0
        backbone["compile"] = compiled
        config["trainer"] |= {"max_steps": STEPS, "log_every_n_steps": 1, "val_check_interval": STEPS}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        options = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / name}"]
        main(["fit", "--config", str(tmp_path / f"{name}.yaml"), *options])
        return tmp_path / name / "version_0"

    return run


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_a_fit_on_compiled_blocks_is_the_fit_without(fit):
    torch._dynamo.reset()
    plain, compiled = fit("plain", False), fit("compiled", True)
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["ok"] >= 1, "nothing was compiled"
    losses = [[float(row["train/loss"]) for row in csv_rows(run) if row.get("train/loss")] for run in (plain, compiled)]
    assert len(losses[0]) == STEPS
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)  # float32: sums in another order, seven updates
    assert trace(compiled).steps.tolist() == trace(plain).steps.tolist()
    np.testing.assert_allclose(trace(compiled).scores, trace(plain).scores, rtol=1e-3, atol=1e-3)
    ends = [json.loads((run / "metrics.json").read_text())["val/loss"] for run in (plain, compiled)]
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)
    keys = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"].keys() for run in (plain, compiled)
    ]
    assert keys[0] == keys[1]
