"""Every config of Pegasus builds as it stands, and runs: on its world, or on tiny folders of the same classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from tests.clips import clip
from text.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs" / "pegasus"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pegasus")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(home / "cache"))


def run(verb: str, name: str, *options: str) -> Path:
    return Path(main([verb, "--config", str(CONFIGS / name), *CPU, *options]).trainer.log_dir)


def answers(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """A run of the miniature, of a few steps on few clips."""
    world = "--data.init_args.train.init_args"
    sizes = [f"{world}.clips=10", f"{world}.test_clips=2", f"{world}.test_seconds=[4]", "--data.batch_size=5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "argv", ["main.py"])
        patch.setenv("SEEDLING_CACHE", str(home / "cache"))
        few = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1"]
        return run("fit", "mini.yaml", *sizes, *few)


def test_the_miniature_tells_how_each_kind_of_question_is_answered(trained: Path):
    told = json.loads((trained / "metrics.json").read_text())
    kinds = ("before", "count", "direction", "order", "shape")
    assert {f"val/exact/{kind}" for kind in kinds} <= told.keys()
    assert all(0 <= told[f"val/exact/{kind}"] <= 1 for kind in kinds)


def test_asking_as_it_stands():
    (line,) = answers(run("predict", "ask.yaml"))
    assert line["prompt"] == "What happens?"
    assert line["video"].endswith(".mp4")


def test_a_run_is_asked_about_a_file(trained: Path, home: Path):
    video = clip(home, 60, "seen.mp4", height=128)
    asked = ["what shape is the red one ?", "which colour comes first ?"]
    model = ["--model=VideoAnswering", f"--model.init_args.run={trained}"]
    data = [f"--data.init_args.video={video}", f"--data.init_args.questions={json.dumps(asked)}"]
    lines = answers(run("predict", "ask.yaml", *model, *data))
    assert [line["prompt"] for line in lines] == asked
    again = answers(run("predict", "ask.yaml", *model, *data, "--model.init_args.engine=plain"))
    assert [line["response"] for line in lines] == [line["response"] for line in again]
    with pytest.raises((UserError, SystemExit)):
        run("predict", "ask.yaml", *model, "--data.init_args.video=nowhere.mp4", data[1])


@pytest.mark.parametrize("name", ["tempcompass", "vidfactscore"])
def test_what_is_on_record_is_scored_without_a_model(name: str):
    folder = run("test", f"{name}.yaml")
    told = json.loads((folder / "metrics.json").read_text())
    measured = f"{name}/" + ("aspect/shape" if name == "tempcompass" else "f1")
    assert 0 < told[measured] < 100
    assert (folder / name / "report.md").is_file()
    if name == "tempcompass":
        assert told["tempcompass/aspect/shape"] > told["tempcompass/aspect/direction"]
