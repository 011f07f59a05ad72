"""The table of costs against what processes took, on a language model of real size: SmolLM2-135M in 4 shapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lm.files.kept_files import cache_folder
from tests import warm_runs
from tests.paper_scale import ROOT

pytestmark = pytest.mark.slow

SHAPES = {
    "adapters, pairs": ["dpo"],
    "adapters, more tokens": ["sft", "--data.batch_size=16"],
    "all weights": ["sft", "--model.backbone.lora=null"],
    "all weights under autocast": ["sft", "--model.backbone.lora=null", "--trainer.precision=bf16-mixed"],
}
UNITS = {"MB": 1e6, "GB": 1e9}


def told(text: str, pattern: str) -> float:
    found = re.search(pattern + r"([\d.]+) (MB|GB)", text)
    assert found, text[-4000:]
    return float(found[1]) * UNITS[found[2]]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_peak_is_within_15_percent_of_what_was_said(tmp_path: Path, shape: str) -> None:
    method, *options = SHAPES[shape]
    config = str(ROOT / "configs" / method / "start.yaml")
    few = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.max_steps=2", "--data.batch_size=8"]
    few += ["--data.micro_batch_tokens=null", "--trainer.callbacks+=Cost", "--trainer.callbacks.measured_steps=1"]
    where = {"COLUMNS": "120", "SEEDLING_CACHE": str(cache_folder())}
    said = warm_runs.run(["main.py", "fit", "--config", config, *few, *options], tmp_path, **where)
    expected = told(said, r"together, per process\s+│ about ")
    assert expected == pytest.approx(told(said, "memory at its peak: "), rel=0.15)
