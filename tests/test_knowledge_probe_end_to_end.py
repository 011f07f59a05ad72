"""The main job through its door: fit, resume, accumulation; what a user finds in the run folder afterwards."""

import json
from pathlib import Path

import numpy as np
import pytest

from cli.trainer_cli import main
from tests.knowledge_runs import STEPS, trace, write_config


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run(folder: Path, verb: str = "fit", *options: str) -> Path:
    """One verb in-process; the newest run folder."""
    config = write_config(folder)
    main([verb, "--config", str(config), "--trainer.default_root_dir", str(folder / "runs"), *options])
    return max((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDLING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return run(tmp_path_factory.mktemp("whole"))


def test_a_fit_leaves_its_report(whole):
    report = json.loads((whole / "knowledge" / "report.json").read_text())
    assert {"duplication", "paraphrase", "once", "control"} == set(report["cells"])
    assert (whole / "knowledge" / "report.md").read_text().startswith("#")
    for picture in ("curves.png", "retention.png"):
        assert (whole / "knowledge" / picture).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["step"] == STEPS
    cell = report["cells"]["duplication"]["mem"]
    assert metrics["probe/duplication/mem/effectivity"] == pytest.approx(cell["effectivity"]["value"], rel=1e-6)
    assert "probe/control/gen/gain" in metrics


def test_probes_are_measured_around_exposures(whole):
    measured = trace(whole)
    assert measured.header["n_injected"] == 2 * (3 + 3 + 1)
    assert measured.header["seeds"] == {"data": 0, "model": 3}
    times = sorted({t for steps in measured.header["injection_steps"].values() for t in steps})
    assert times == [0, 1, 6, 12]  # six passages in four rows: a second wave
    after = [15 + k for k in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18)]  # ten to the power of 0, 1/12, 2/12, ...
    assert measured.steps.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 12, 13, 14, 15, *after, STEPS - 4]
    assert np.isfinite(measured.scores[..., :3]).all()


def test_resumed_fit_equals_an_uninterrupted_one(whole, tmp_path):
    first = run(tmp_path, "fit", "--trainer.max_steps", "20")
    again = run(tmp_path, "fit", "--ckpt_path", "last")
    assert again == first
    np.testing.assert_array_equal(trace(again).steps, trace(whole).steps)
    np.testing.assert_array_equal(trace(again).scores, trace(whole).scores)
    assert (again / "knowledge" / "report.json").read_text().replace(str(again), "") == (
        whole / "knowledge" / "report.json"
    ).read_text().replace(str(whole), "")


def test_accumulated_fit_equals_a_whole_one(tmp_path):
    still = ["--model.init_args.backbone.init_args.config.attention_dropout", "0", "--trainer.max_steps", "12"]
    one = run(tmp_path / "one", "fit", *still)
    two = run(tmp_path / "two", "fit", *still, "--trainer.accumulate_grad_batches", "2")
    np.testing.assert_allclose(trace(two).scores, trace(one).scores, rtol=1e-5, atol=1e-4)


def test_validate_and_predict_take_the_checkpoint(whole, tmp_path, capsys):
    checkpoint = ["--ckpt_path", str(whole / "checkpoints" / "last.ckpt")]
    last = trace(whole).scores[-1]
    folder = run(tmp_path, "predict", *checkpoint)
    rows = [json.loads(line) for line in (folder / "knowledge" / "probes.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["target_mean"] for row in rows], last[:, 0], rtol=1e-4)
    folder = run(tmp_path, "validate", *checkpoint)
    assert "Mean log-probability" in capsys.readouterr().out
    metrics = json.loads((folder / "metrics.json").read_text())
    control = [i for i, row in enumerate(rows) if (row["scenario"], row["type"]) == ("control", "mem")]
    assert metrics["probe/control/mem/logprob"] == pytest.approx(last[control, 0].mean(), rel=1e-5)
