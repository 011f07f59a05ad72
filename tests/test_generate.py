"""configs/generate.yaml: as it stands, and talking to what its comments say it can talk to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from cli.trainer_cli import main
from lm.files.names import resolve
from lm.files.packaged import packaged_model
from tests.stand_ins import LLAMA, published
from text.errors import UserError

CONFIG = Path(__file__).parents[1] / "configs" / "generate.yaml"
SHORT = ["--trainer.accelerator=cpu", "--model.init_args.decoding.max_new_tokens=4"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def answered(*options: str) -> list[dict]:
    cli = main(["predict", "--config", str(CONFIG), *SHORT, *options])
    return [json.loads(line) for line in (Path(cli.trainer.log_dir) / "responses.jsonl").read_text().splitlines()]


def test_runs_as_it_stands_and_always_says_the_same():
    (line,) = answered()
    assert line["prompt"] == "Hello"
    assert [line] == answered()
    assert sorted(path.name for path in Path("runs").glob("*/*/version_*")) == ["version_0", "version_1"]


def test_talks_to_a_folder_with_prompts_of_the_command_line(tmp_path):
    model = f"--model.init_args.backbone.name_or_path={published(tmp_path / 'model')}"
    lines = answered(model, '--data.init_args.prompts=["hello", "the cat"]', "--model.init_args.samples=2")
    assert [(line["prompt"], line["draw"]) for line in lines] == [(p, d) for p in ("hello", "the cat") for d in (0, 1)]


def test_talks_to_a_run_with_prompts_of_a_file(tmp_path):
    base = published(tmp_path / "base")
    Path("prompts.jsonl").write_text(json.dumps({"prompt": "the cat", "topic": "zoo"}) + "\n")
    Path("train.jsonl").write_text(json.dumps({"prompt": "the cat", "output": "sat on the mat"}) + "\n")
    backbone = {"class_path": "ScratchBackbone", "init_args": {"architecture": "llama", "config": LLAMA}}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    tokenizer = {"class_path": "PretrainedTokenizer", "init_args": {"name_or_path": str(base)}}
    config = {
        "model": {"class_path": "SFT", "init_args": {"backbone": backbone, "optimizer": optimizer}},
        "data": {"class_path": "Instructions", "init_args": {"train": "train.jsonl", "tokenizer": tokenizer}},
        "trainer": {"accelerator": "cpu", "max_steps": 80, "enable_progress_bar": False, "logger": False},
    }
    config["data"]["init_args"]["batch_size"] = 1
    Path("fit.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "fit.yaml", "--trainer.default_root_dir=trained"])
    run = ["--model.init_args.backbone=TrainedBackbone", "--model.init_args.backbone.path=trained/version_0"]
    (line,) = answered(*run, "--data.init_args.prompts=prompts.jsonl", "--model.init_args.decoding.max_new_tokens=20")
    assert (line["response"], line["finished"], line["topic"]) == ("sat on the mat", True, "zoo")


def test_every_option_of_decoding_is_an_option():
    options = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.2, "stop": '["e"]'}
    lines = answered(*(f"--model.init_args.decoding.{name}={value}" for name, value in options.items()))
    assert len(lines) == 1


def test_says_what_is_wrong_with_decoding(capsys):
    with pytest.raises(SystemExit):
        answered("--model.init_args.decoding.top_p=2")
    assert "'top_p' is 2.0; it must be above 0 and at most 1" in capsys.readouterr().err


def test_the_untrained_model_is_made_once(tmp_path):
    folder = Path(resolve("builtin:untrained", "model"))
    assert folder.is_relative_to(tmp_path / "cache")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve("builtin:untrained", "model") == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="builtin:minilm, builtin:lite0, builtin:smollm2, builtin:untrained"):
        packaged_model("builtin:untraind")
